//! What may become of a master's data: backups and what is restored from them, and files that no
//! master may start over.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use cloudai_e2e::{BUSYBOX, Cluster, Console, engine, run, until};
use serde_json::Value;

/// Runs until somebody makes a file in its container.
const UNTIL_TOLD: &str = "echo begun; until test -e /tmp/go; do sleep 0.1; done; echo done";

fn tell(container: &str) {
    let told = engine::docker(&["exec", container, "touch", "/tmp/go"]);
    assert_eq!(told.code, 0, "{}", told.err());
}

fn submit_until_told(cluster: &Cluster) -> String {
    cluster.submit(&[BUSYBOX, "sh", "-c", UNTIL_TOLD])
}

/// A path as an argument.
fn text(path: &Path) -> &str {
    path.to_str().expect("temporary directories have plain names")
}

fn number_of(task: &str) -> u64 {
    task.trim_start_matches("task-").parse().expect("a task of one job is a number")
}

/// Starts a master over another data directory, on the ports that the workers know.
fn start_over(cluster: &mut Cluster, data_dir: &Path) {
    let port = |address: String| address.rsplit(':').next().unwrap_or_default().to_owned();
    let (grpc, http) = (port(cluster.grpc_address()), port(cluster.http_address()));
    let ports = ["--grpc-port", &grpc, "--http-port", &http];
    let mut command = cluster.command(&["master", "--data-dir", text(data_dir)]);
    command.args(ports);
    cluster.adopt_master(command);
}

/// The first file or folder below that somebody else than its owner may read or write.
fn find_open(folder: &Path) -> Option<PathBuf> {
    fs::read_dir(folder).expect("a folder of this test").find_map(|entry| {
        // What is removed meanwhile is open to nobody.
        let path = entry.ok()?.path();
        let metadata = path.symlink_metadata().ok()?;
        let is_open = metadata.permissions().mode() & 0o077 != 0;
        is_open.then_some(path.clone()).or_else(|| metadata.is_dir().then(|| find_open(&path))?)
    })
}

#[test]
fn what_is_kept_can_be_read_by_its_owner_alone() {
    let cluster = Cluster::start();
    let worker = cluster.worker("worker-1", &[]);
    let runs = cluster.submit(&["-e", "TOKEN=secret", BUSYBOX, "sh", "-c", UNTIL_TOLD]);
    let container = cluster.wait_container(&runs, &worker);
    let backup = cluster.dir().join("backups/first");
    let data = cluster.data_dir();
    cluster.ok(&["backup", text(&backup), "--data-dir", text(&data)]);
    for folder in [&data, &backup] {
        assert_eq!(find_open(folder), None);
    }
    tell(&container);
    cluster.wait_success(&runs);
}

#[test]
fn a_restored_master_goes_on_and_what_it_does_not_know_is_fenced() {
    let mut cluster = Cluster::start();
    let worker = cluster.worker("worker-1", &["--cpus", "8"]);
    let ended = cluster.submit(&[BUSYBOX, "echo", "kept"]);
    cluster.wait_success(&ended);
    let (runs, ends) = (submit_until_told(&cluster), submit_until_told(&cluster));
    let runs_in = cluster.wait_container(&runs, &worker);
    let ends_in = cluster.wait_container(&ends, &worker);

    let data = cluster.data_dir();
    let backup = cluster.dir().join("backups/first");
    let made = cluster.ok(&["backup", text(&backup), "--data-dir", text(&data), "--json"]);
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(made["store"]["tasks"]["running"], 2, "{made:#}");
    assert_eq!(made["store"]["tasks"]["succeeded"], 1, "{made:#}");

    // All of this is lost: the end of a task, and two tasks.
    tell(&ends_in);
    cluster.wait_success(&ends);
    let unknown = submit_until_told(&cluster);
    let unknown_in = cluster.wait_container(&unknown, &worker);
    cluster.wait_success(&cluster.submit(&[BUSYBOX, "true"]));
    let mark = worker.process.mark();
    cluster.kill_master();
    let new = cluster.dir().join("restored");
    let said = cluster.ok(&["restore", text(&backup), "--data-dir", text(&new)]);
    for words in ["Lost: everything", "Fenced: epoch", "Next: cloudai master --data-dir"] {
        assert!(said.contains(words), "{said}");
    }
    start_over(&mut cluster, &new);
    worker.process.wait_for_after(mark, "Worker registered successfully");

    // What ran goes on in the same container, and ends once.
    tell(&runs_in);
    let detail = cluster.wait_success(&runs);
    assert_eq!(detail["attempts"].as_array().map(Vec::len), Some(1), "{detail:#}");
    assert_eq!(cluster.ok(&["logs", &runs]), "begun\ndone");
    // What had ended and is not known to have runs again, under a number that nobody had.
    let again_in = until("the task runs again", || {
        let found = cluster.wait_container(&ends, &worker);
        (found != ends_in).then_some(found)
    });
    tell(&again_in);
    let detail = cluster.wait_success(&ends);
    assert!(detail["attempt"].as_u64() > Some(16), "{detail:#}");
    assert_eq!(cluster.ok(&["logs", &ends]), "begun\ndone");
    // What is not known at all is stopped and removed.
    until("the container of a task that nobody knows is gone", || {
        (engine::docker(&["inspect", &unknown_in]).code != 0).then_some(())
    });
    assert_eq!(cluster.get(&format!("/tasks/{unknown}")).status, 404);
    // What had ended is as it was, and no id is given twice.
    assert_eq!(cluster.ok(&["logs", &ended]), "kept");
    let next = cluster.submit(&[BUSYBOX, "true"]);
    assert!(number_of(&next) > 40_000, "{next}");
    cluster.wait_success(&next);
    for task in [&runs, &ends] {
        let told = format!("Task completion: {task} from");
        assert_eq!(cluster.master().said().matches(&told).count(), 1, "{task}");
    }
    engine::wait_gone(&worker.label);
}

#[test]
fn a_stopped_and_a_killed_master_can_be_backed_up() {
    let mut cluster = Cluster::start();
    let task = cluster.submit(&[BUSYBOX, "true"]);
    let data = cluster.data_dir();
    let backup = |cluster: &Cluster, name: &str| {
        let to = cluster.dir().join(name);
        let said = cluster.ok(&["backup", text(&to), "--data-dir", text(&data), "--store-only"]);
        assert!(said.contains("1 tasks to do, 0 ended"), "{said}");
        to
    };
    cluster.kill_master();
    backup(&cluster, "killed");
    cluster.start_master();
    assert_eq!(cluster.stop_master(), 0);
    let stopped = backup(&cluster, "stopped");
    let new = cluster.dir().join("new");
    cluster.ok(&["restore", text(&stopped), "--data-dir", text(&new)]);
    start_over(&mut cluster, &new);
    assert_eq!(cluster.task(&task)["status"], "queued");
}

#[test]
fn a_backup_or_restore_that_makes_no_sense_is_refused_and_says_what_to_do() {
    let mut cluster = Cluster::start();
    let data = cluster.data_dir();
    let (data, dir) = (text(&data), cluster.dir());
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (backup, nothing) = (path("backup"), path("nothing"));
    cluster.ok(&["backup", &backup, "--data-dir", data]);
    let again = cluster.cli(&["backup", &backup, "--data-dir", data]);
    again.check(2, &["is not empty", "name a directory that does not exist yet"]);
    let inside = cluster.cli(&["backup", &format!("{data}/backup"), "--data-dir", data]);
    inside.check(2, &["lies in the data directory", "on another disk"]);
    let no_store = cluster.cli(&["backup", &path("second"), "--data-dir", &nothing]);
    no_store.check(125, &["there is no store in", "--data-dir"]);
    assert!(!dir.join("second").exists());
    let no_backup = cluster.cli(&["restore", &nothing, "--data-dir", &path("new")]);
    no_backup.check(2, &["is not a backup", "that 'cloudai backup' made"]);
    let in_use = cluster.cli(&["restore", &backup, "--data-dir", data]);
    in_use.check(125, &["is in use by another master"]);
    assert_eq!(cluster.stop_master(), 0);
    let not_there = run(&mut cluster.command(&["master", "--data-dir", &backup]));
    not_there.check(125, &["is a backup", &format!("cloudai restore {backup} --data-dir NEW")]);
    let occupied = cluster.cli(&["restore", &backup, "--data-dir", data]);
    occupied.check(2, &["is not empty", "another --data-dir"]);
    cluster.cli(&["backup"]).check(2, &["DIR"]);
    assert!(!dir.join("new").exists());
    cluster.start_master();
}

/// A data directory with a task in it, whose master has stopped.
fn stopped() -> (Cluster, PathBuf) {
    let mut cluster = Cluster::start();
    cluster.submit(&[BUSYBOX, "true"]);
    assert_eq!(cluster.stop_master(), 0);
    let store = cluster.data_dir().join("cloudai.db");
    (cluster, store)
}

/// The master does not start, says these words, and leaves the store as it is.
#[track_caller]
fn check_refused(cluster: &Cluster, store: &Path, words: &[&str]) {
    let before = fs::read(store).expect("there is a store");
    run(&mut cluster.master_command(0, 0)).check(125, words);
    assert!(fs::read(store).expect("there is a store") == before, "the store was changed");
}

#[test]
fn a_damaged_store_is_refused_with_what_to_do() {
    let (cluster, store) = stopped();
    let whole = fs::read(&store).unwrap();
    let mut torn = whole.clone();
    torn[4_096..][..512].fill(0);
    let mut header = whole.clone();
    header[..16].fill(0);
    for bytes in [torn, header, whole[..whole.len() / 2].to_vec()] {
        fs::write(&store, bytes).unwrap();
        let words = ["is damaged", "Nothing was changed", "cloudai restore BACKUP --data-dir NEW"];
        check_refused(&cluster, &store, &words);
        let (to, from) = (cluster.dir().join("backup"), cluster.data_dir());
        let backup = cluster.cli(&["backup", text(&to), "--data-dir", text(&from)]);
        backup.check(125, &[&format!("the store {} is damaged", store.display())]);
        assert!(!to.exists());
    }
    fs::write(&store, "this is a letter to my landlord, and no database").unwrap();
    check_refused(&cluster, &store, &["Nothing was changed"]);
}

#[test]
fn a_database_of_another_program_is_refused() {
    let cluster = Cluster::prepare(Console::Service, &[]);
    fs::create_dir(cluster.data_dir()).unwrap();
    let store = cluster.data_dir().join("cloudai.db");
    let other = rusqlite::Connection::open(&store).unwrap();
    other.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(other);
    let words = ["not one of CloudAI", "another --data-dir", "move that file away"];
    check_refused(&cluster, &store, &words);
}

#[test]
fn a_store_without_its_log_is_refused() {
    let mut cluster = Cluster::start();
    cluster.submit(&[BUSYBOX, "true"]);
    cluster.kill_master();
    let store = cluster.data_dir().join("cloudai.db");
    let log = cluster.data_dir().join("cloudai.db-wal");
    let saved = fs::read(&log).unwrap();
    fs::remove_file(&log).unwrap();
    let words = ["did not close the store", "Put that file back", "cloudai restore BACKUP"];
    check_refused(&cluster, &store, &words);
    // As it says: the log back, and all is there.
    fs::write(&log, saved).unwrap();
    cluster.start_master();
    assert_eq!(cluster.task("task-1")["status"], "queued");
}

#[test]
fn facts_that_no_master_wrote_are_refused() {
    let (cluster, store) = stopped();
    let change = |sql: &str| {
        let changed = rusqlite::Connection::open(&store).unwrap();
        changed.execute_batch(sql).unwrap();
    };
    change("UPDATE cluster SET last_job = 0");
    let words = ["inconsistent", "Nothing was changed", "cloudai restore BACKUP --data-dir NEW"];
    run(&mut cluster.master_command(0, 0)).check(125, &words);
}

#[test]
fn data_that_cannot_be_written_is_refused() {
    let (cluster, store) = stopped();
    // Another user, who may look; whoever runs this as nobody already is one.
    let refused = |words: &[&str]| {
        let mut command = cluster.master_command(0, 0);
        if rustix::process::geteuid().is_root() {
            command.uid(65_534).gid(65_534);
        }
        run(&mut command).check(125, words);
    };
    let mode = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&cluster.dir(), 0o755);
    let (data, lock) = (cluster.data_dir(), cluster.data_dir().join("cloudai.lock"));
    let words = ["cannot be written", "the user who owns it", "chown"];
    for (folder, lock_mode, store_mode) in [(0o555, 0o444, 0o444), (0o777, 0o666, 0o444)] {
        mode(&lock, lock_mode);
        mode(&store, store_mode);
        mode(&data, folder);
        refused(&words);
    }
    mode(&data, 0o755);
}
