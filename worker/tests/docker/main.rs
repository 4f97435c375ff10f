//! The Docker executor against a real engine. A machine without one fails these tests; see
//! TESTING.md for what they need.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod bench;
mod proxy;
mod registry;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bench::{
    IMAGE, PATIENCE, Report, Run, assign, connect, containers_of, engine, executor, run, run_spec,
    settings, shell,
};
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptions,
};
use cloudai_model::{Cause, Invocation, Network, PullPolicy, TaskSpec};
use cloudai_worker::executor::docker::{DockerExecutor, VolumeSource};
use cloudai_worker::executor::{ExecutorError, StopRequest};
use futures_util::StreamExt;
use proxy::Proxy;
use registry::Registry;

#[tokio::test]
async fn a_success_keeps_its_streams_apart() {
    let report = run("echo out; echo err >&2; printf 'no end of line'").await;
    assert_eq!(report.outcome(), "exit(0)");
    assert_eq!(report.stdout, "out\nno end of line");
    assert_eq!(report.stderr, "err\n");
    assert_eq!((report.gaps.as_str(), report.notes.len()), ("", 0));
    assert!(report.ended.at.unix_ms() > 1_600_000_000_000);
}

#[tokio::test]
async fn output_that_is_not_text_comes_through_whole() {
    let report = run("printf '\\377\\000\\001\\002x'; head -c 40000 /dev/zero").await;
    assert_eq!(report.stdout.len(), "\u{fffd}".len() + 4 + 40_000);
    assert!(report.stdout.starts_with("\u{fffd}\0\u{1}\u{2}x\0"));
}

#[tokio::test]
async fn a_flood_keeps_its_tail() {
    // Long and short lines: the engine's record has a frame for each line.
    let report =
        run("dd if=/dev/zero bs=64k count=800 2>&1; yes | head -c 200000; echo tail").await;
    assert_eq!((report.outcome().as_str(), report.gaps.as_str()), ("exit(0)", ""));
    assert!(report.stdout.len() > 800 << 16, "{} bytes", report.stdout.len());
    assert!(report.stdout.ends_with("\ntail\n"));
}

#[tokio::test]
async fn an_exit_code_is_the_tasks_own() {
    assert_eq!(run("exit 3").await.outcome(), "exit(3)");
    assert_eq!(run("kill -9 $$").await.outcome(), "exit(137)");
    let mut spec = shell("");
    spec.invocation = Invocation::Arguments(vec!["cloudai-no-such-program".into()]);
    let report = run_spec(spec).await;
    assert_eq!(report.ended.outcome.cause, Cause::Exit(127), "{}", report.stderr);
}

#[tokio::test]
async fn a_task_knows_who_it_is() {
    let mut spec = shell("env | grep -e CLOUDAI -e GREETING | sort; ls -d /output");
    spec.env.insert("GREETING".into(), "hello = world".into());
    let run = Run::start(&executor().await, assign(spec));
    let task = run.attempt.task;
    let job = task.job;
    let want = format!(
        "CLOUDAI_ARRAY_INDEX=7\nCLOUDAI_ATTEMPT=1\nCLOUDAI_JOB_ID={job}\nCLOUDAI_TASK_ID={task}\n\
         CLOUDAI_WORKER_ID=worker-test\nGREETING=hello = world\n/output\n"
    );
    assert_eq!(run.end().await.stdout, want);
}

#[tokio::test]
async fn limits_are_those_that_inspect_shows() {
    let mut spec = shell("exec sleep 1000");
    spec.needs.cpu_milli = 1500;
    spec.needs.memory_bytes = 2 << 30;
    spec.limits.pids_max = 256;
    let mut run = Run::start(&executor().await, assign(spec));
    run.started().await;
    let inspected = engine().inspect_container(&run.container(), None).await.unwrap();
    let host = inspected.host_config.unwrap();
    assert_eq!(host.nano_cpus, Some(1_500_000_000));
    assert_eq!((host.memory, host.memory_swap), (Some(2_147_483_648), Some(2_147_483_648)));
    assert_eq!(host.pids_limit, Some(256));
    assert_eq!(host.security_opt, Some(vec!["no-new-privileges".to_owned()]));
    assert_eq!((host.init, host.network_mode.as_deref()), (Some(true), Some("none")));
    assert_eq!(host.privileged, Some(false));
    let labels = inspected.config.unwrap().labels.unwrap();
    let task = run.attempt.task;
    assert_eq!(labels["cloudai.task"], task.to_string());
    assert_eq!(labels["cloudai.attempt"], run.attempt.to_string());
    assert_eq!(labels["cloudai.job"], task.job.to_string());
    assert_eq!((&*labels["cloudai.session"], &*labels["cloudai.worker"]), ("3", "worker-test"));
    run.stop.send_replace(Some(StopRequest { cause: Cause::Cancelled, grace_ms: 0 }));
    assert_eq!(run.end().await.outcome(), "cancelled");
}

#[tokio::test]
async fn the_engines_network_is_there_unless_it_is_refused() {
    let interfaces = |network| {
        let mut spec = shell("ls /sys/class/net | grep -c -v lo");
        spec.network = network;
        run_spec(spec)
    };
    let with = interfaces(Network::Default).await;
    assert_eq!((with.outcome().as_str(), with.stdout.as_str()), ("exit(0)", "1\n"));
    assert_eq!(interfaces(Network::None).await.stdout, "0\n");
}

#[tokio::test]
async fn more_memory_than_asked_for_is_oom() {
    let mut spec = shell("exec tail /dev/zero");
    spec.needs.memory_bytes = 16 << 20;
    let report = run_spec(spec).await;
    assert_eq!(report.outcome(), "oom used more than its 16777216 bytes of memory");
}

#[tokio::test]
async fn a_child_that_is_killed_does_not_fail_a_task_that_goes_on() {
    let mut spec = shell("tail /dev/zero; echo went on");
    spec.needs.memory_bytes = 16 << 20;
    let report = run_spec(spec).await;
    assert_eq!((report.outcome().as_str(), report.stdout.as_str()), ("exit(0)", "went on\n"));
}

#[tokio::test]
async fn a_fork_bomb_ends_in_its_own_container() {
    let mut spec = shell("bomb() { bomb | bomb & }; bomb; while true; do sleep 1; done");
    spec.limits.pids_max = 32;
    spec.limits.timeout_ms = Some(2_000);
    spec.limits.grace_ms = 200;
    spec.needs.cpu_milli = 200;
    let report = run_spec(spec).await;
    let is_contained = matches!(report.ended.outcome.cause, Cause::Timeout | Cause::Exit(1..));
    assert!(is_contained && report.stderr.contains("fork"), "{}", report.outcome());
    assert_eq!(run("echo well").await.stdout, "well\n");
}

#[tokio::test]
async fn a_task_that_ignores_sigterm_is_killed_after_its_grace() {
    let mut run = Run::start(
        &executor().await,
        assign(shell("trap 'echo not yet' TERM; echo up; while true; do sleep 0.1; done")),
    );
    run.started().await;
    run.wrote().await;
    let asked = Instant::now();
    run.stop.send_replace(Some(StopRequest { cause: Cause::Cancelled, grace_ms: 1_000 }));
    let report = run.end().await;
    assert_eq!((report.outcome().as_str(), report.stdout.as_str()), ("cancelled", "up\nnot yet\n"));
    assert!(asked.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_stop_shortens_the_grace_of_a_time_out() {
    let mut spec = shell("trap 'echo not yet' TERM; while true; do sleep 0.1; done");
    (spec.limits.timeout_ms, spec.limits.grace_ms) = (Some(2_000), 3_600_000);
    let mut run = Run::start(&executor().await, assign(spec));
    run.started().await;
    // Its time-out has come, and it does not heed the signal.
    run.wrote().await;
    run.stop.send_replace(Some(StopRequest { cause: Cause::WorkerLost, grace_ms: 0 }));
    assert_eq!(run.end().await.outcome(), "timeout ran longer than its time-out of 2000 ms");
}

#[tokio::test]
async fn a_task_that_heeds_sigterm_does_not_wait_for_its_grace() {
    let line = "trap 'echo bye; exit 0' TERM; echo up; while true; do sleep 0.1; done";
    let mut run = Run::start(&executor().await, assign(shell(line)));
    run.started().await;
    run.wrote().await;
    run.stop.send_replace(Some(StopRequest { cause: Cause::WorkerLost, grace_ms: 3_600_000 }));
    let report = run.end().await;
    assert_eq!((report.outcome().as_str(), report.stdout.as_str()), ("worker_lost", "up\nbye\n"));
}

#[tokio::test]
async fn a_stop_before_the_container_exists_needs_no_container() {
    let executor = executor().await;
    let run = Run::start(&executor, assign(shell("echo never")));
    run.stop.send_replace(Some(StopRequest { cause: Cause::Cancelled, grace_ms: 0 }));
    let report = run.end().await;
    assert_eq!((report.outcome().as_str(), report.stdout.as_str()), ("cancelled", ""));
}

#[tokio::test]
async fn a_task_that_runs_too_long_times_out() {
    let mut spec = shell("echo begun; sleep 1000");
    spec.limits.timeout_ms = Some(500);
    let report = run_spec(spec).await;
    assert_eq!(report.outcome(), "timeout ran longer than its time-out of 500 ms");
    assert_eq!(report.stdout, "begun\n");
}

#[tokio::test]
async fn a_dropped_future_leaves_no_container() {
    let executor = executor().await;
    let mut run = Run::start(&executor, assign(shell("trap '' TERM; sleep 1000")));
    run.started().await;
    run.handle.abort();
    assert!(executor.settle(bench::PATIENCE).await);
    assert_eq!(containers_of(&run.attempt).await, 0);
}

async fn run_image(image: &str, pull: PullPolicy) -> Report {
    let mut spec = shell("cat /mark");
    image.clone_into(&mut spec.image);
    spec.pull = pull;
    run_spec(spec).await
}

#[tokio::test]
async fn an_image_that_does_not_exist_fails_with_the_registrys_words() {
    let registry = Registry::start(None).await;
    let missing = format!("{}/missing:1", registry.host);
    let report = run_image(&missing, PullPolicy::Missing).await;
    assert_eq!(report.ended.outcome.cause, Cause::Image);
    assert!(report.outcome().contains("manifest"), "{}", report.outcome());
    let never = run_image(&missing, PullPolicy::Never).await.outcome();
    assert_eq!(never, format!("image No such image: {missing} (the pull policy is 'never')"));
    let unreachable = run_image("127.0.0.1:1/a:b", PullPolicy::Missing).await.outcome();
    assert!(unreachable.starts_with("infra cannot pull '127.0.0.1:1/a:b'"), "{unreachable}");
    let invalid = run_image("UPPER/:x", PullPolicy::Missing).await.outcome();
    assert!(invalid.starts_with("image "), "{invalid}");
}

#[tokio::test]
async fn an_image_is_pulled_once_for_all_who_wait() {
    let registry = Registry::start(None).await;
    registry.gate.send_replace(false);
    let image = format!("{}/good:1", registry.host);
    let mut spec = shell("read mark </mark; echo got $mark");
    spec.image.clone_from(&image);
    let executor = executor().await;
    let mut first = Run::start(&executor, assign(spec.clone()));
    let mut second = Run::start(&executor, assign(spec));
    first.noted("pulling").await;
    second.noted("pulling").await;
    registry.gate.send_replace(true);
    let reports = [first.end().await, second.end().await];
    engine().remove_image(&image, None::<RemoveImageOptions>, None).await.unwrap();
    for report in reports {
        assert!(report.stdout.starts_with("got "), "{}", report.outcome());
        assert!(report.notes.iter().any(|note| note.starts_with("pulled ")), "{:?}", report.notes);
    }
    assert_eq!(registry.layers_sent.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_registry_that_wants_a_login_gets_the_one_of_the_docker_config() {
    // "user:~~secret~~>?" in base64; its JSON holds '+' and '/' in standard base64.
    let registry = Registry::start(Some("dXNlcjp+fnNlY3JldH5+Pj8=")).await;
    let image = format!("{}/good:1", registry.host);
    let refused = run_image(&image, PullPolicy::Always).await.outcome();
    assert!(refused.starts_with("image cannot pull"), "{refused}");
    let config = tempfile::tempdir().unwrap();
    let auths =
        format!(r#"{{"auths": {{"{}": {{"auth": "dXNlcjp+fnNlY3JldH5+Pj8="}}}}}}"#, registry.host);
    std::fs::write(config.path().join("config.json"), auths).unwrap();
    let mut settings = settings();
    settings.docker_config_dir = Some(config.path().to_owned());
    let mut spec = shell("echo pulled");
    spec.image.clone_from(&image);
    spec.pull = PullPolicy::Always;
    let report = Run::start(&connect(settings).await, assign(spec)).end().await;
    engine().remove_image(&image, None::<RemoveImageOptions>, None).await.unwrap();
    assert_eq!((report.outcome().as_str(), report.stdout.as_str()), ("exit(0)", "pulled\n"));
}

#[tokio::test]
async fn a_stop_ends_an_attempt_that_waits_for_its_image() {
    let registry = Registry::start(None).await;
    registry.gate.send_replace(false);
    let mut spec = shell("true");
    spec.image = format!("{}/good:1", registry.host);
    let mut run = Run::start(&executor().await, assign(spec));
    run.noted("pulling").await;
    run.stop.send_replace(Some(StopRequest { cause: Cause::Cancelled, grace_ms: 0 }));
    assert_eq!(run.end().await.outcome(), "cancelled");
}

const HOSTILE: &str = "cd /output; mkdir -p a/b; echo deep >a/b/deep; echo top >top; chmod 0 top a;
    ln -s /etc/passwd link; ln -s / a/root; mkfifo fifo; mknod device b 7 0; ln -s a dir";

fn check_hostile(report: &Report) {
    assert_eq!(report.outcome(), "exit(0)");
    assert_eq!(report.stderr, "");
    assert_eq!(report.files(), ["a/b/deep", "top"]);
    assert_eq!(std::fs::read_to_string(report.file("a/b/deep")).unwrap(), "deep\n");
    assert_eq!(std::fs::read_to_string(report.file("top")).unwrap(), "top\n");
    assert!(!report.file("link").exists());
    let notes = report.notes.join("\n");
    assert!(notes.contains("5 entries were left out"), "{notes}");
}

#[tokio::test]
async fn only_regular_files_of_the_output_are_taken() {
    check_hostile(&run(HOSTILE).await);
    let report = run("true").await;
    assert_eq!((report.files().len(), report.notes.len()), (0, 0));
}

#[tokio::test]
async fn the_output_of_an_engine_on_another_machine_comes_as_an_archive() {
    let proxy = Proxy::start().await;
    let mut settings = settings();
    settings.host = Some(proxy.host.clone());
    let executor = connect(settings).await;
    check_hostile(&Run::start(&executor, assign(shell(HOSTILE))).end().await);
    let report = Run::start(&executor, assign(shell("true"))).end().await;
    assert_eq!((report.outcome().as_str(), report.files().len()), ("exit(0)", 0));
}

#[tokio::test]
async fn an_image_with_another_user_owns_its_output() {
    let mut spec = shell("id -u; echo mine >/output/file");
    spec.image = "cloudai-test/nonroot".into();
    let report = run_spec(spec).await;
    assert_eq!((report.stdout.as_str(), report.stderr.as_str()), ("1000\n", ""));
    assert_eq!(report.files(), ["file"]);
}

/// What `seq 1 last` writes.
fn lines(last: u32) -> String {
    (1..=last).fold(String::new(), |text, n| text + &n.to_string() + "\n")
}

#[tokio::test]
async fn a_connection_that_breaks_loses_neither_the_log_nor_the_exit_code() {
    let proxy = Proxy::start().await;
    let mut settings = settings();
    settings.host = Some(proxy.host.clone());
    let line = "seq 1 1000; seq 1 500 >&2; while [ ! -e /output/go ]; do sleep 0.05; done
        seq 1001 2000; exit 5";
    let mut run = Run::start(&connect(settings).await, assign(shell(line)));
    run.started().await;
    run.wrote().await;
    proxy.cut();
    let exec = bollard::models::ExecConfig {
        cmd: Some(vec!["touch".into(), "/output/go".into()]),
        attach_stdout: Some(true),
        ..Default::default()
    };
    let docker = engine();
    let exec = docker.create_exec(&run.container(), exec).await.unwrap();
    let bollard::exec::StartExecResults::Attached { mut output, .. } =
        docker.start_exec(&exec.id, None).await.unwrap()
    else {
        panic!("not attached");
    };
    while output.next().await.is_some() {}
    let report = run.end().await;
    assert_eq!(report.outcome(), "exit(5)");
    assert_eq!((report.stdout.as_str(), report.gaps.as_str()), (&*lines(2000), ""));
    assert!(report.stderr == lines(500));
}

#[tokio::test]
async fn a_container_that_somebody_removed_is_no_fault_of_the_task() {
    let mut run = Run::start(&executor().await, assign(shell("sleep 1000")));
    run.started().await;
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    engine().remove_container(&run.container(), Some(options)).await.unwrap();
    let report = run.end().await;
    assert_eq!(report.ended.outcome.cause, Cause::Infra, "{}", report.outcome());
}

#[tokio::test]
async fn what_an_earlier_process_left_is_found_and_nothing_else() {
    let settings = settings();
    let earlier = connect(settings.clone()).await;
    let other = executor().await;
    let mut left = Run::start(&earlier, assign(shell("sleep 1000")));
    let mut kept = Run::start(&other, assign(shell("sleep 1000")));
    left.started().await;
    kept.started().await;
    let later = connect(settings).await;
    let mut found = later.find().await.unwrap();
    let found = (found.len(), found.pop().unwrap());
    assert_eq!((found.0, found.1.attempt()), (1, Some(left.attempt)));
    assert!(found.1.started_at().is_some());
    later.remove(found.1);
    assert!(later.settle(PATIENCE).await);
    assert_eq!((containers_of(&left.attempt).await, containers_of(&kept.attempt).await), (0, 1));
    kept.stop.send_replace(Some(StopRequest { cause: Cause::Cancelled, grace_ms: 0 }));
    assert_eq!(kept.end().await.outcome(), "cancelled");
    assert_eq!(left.end().await.ended.outcome.cause, Cause::Infra);
}

#[tokio::test]
async fn a_name_that_another_cluster_uses_is_no_obstacle() {
    let executor = executor().await;
    let assignment = assign(shell("echo ran"));
    let name = format!("cloudai-{}", assignment.attempt);
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    let body = ContainerCreateBody { image: Some(IMAGE.into()), ..Default::default() };
    let foreign = engine().create_container(Some(options), body).await.unwrap().id;
    let report = Run::start(&executor, assignment).end().await;
    engine().remove_container(&foreign, None).await.unwrap();
    assert_eq!((report.outcome().as_str(), report.stdout.as_str()), ("exit(0)", "ran\n"));
}

#[tokio::test]
async fn a_declared_volume_is_seen_and_can_be_read_only() {
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("file"), "shared").unwrap();
    let mut settings = settings();
    settings.volumes.insert("data".into(), VolumeSource::HostPath(data.path().to_owned()));
    let mut spec = shell("cat /data/file; echo x >/data/new");
    spec.mounts = vec![cloudai_model::Mount {
        volume: "data".into(),
        target: "/data".into(),
        read_only: true,
    }];
    let report = Run::start(&connect(settings).await, assign(spec)).end().await;
    assert_eq!((report.outcome().as_str(), report.stdout.as_str()), ("exit(1)", "shared"));
    assert!(report.stderr.contains("Read-only file system"), "{}", report.stderr);
}

#[tokio::test]
async fn a_declared_volume_in_the_place_of_the_output_keeps_its_files() {
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("file"), "theirs").unwrap();
    let mut settings = settings();
    settings.volumes.insert("data".into(), VolumeSource::HostPath(data.path().to_owned()));
    let mut spec = shell("true");
    // No master lets it pass: the worker does not rely on that.
    spec.mounts = vec![cloudai_model::Mount {
        volume: "data".into(),
        target: "/output/".into(),
        read_only: true,
    }];
    Run::start(&connect(settings).await, assign(spec)).end().await;
    assert_eq!(std::fs::read_to_string(data.path().join("file")).unwrap(), "theirs");
}

#[tokio::test]
async fn gpus_that_the_engine_cannot_give_are_told_in_words() {
    let executor = executor().await;
    if executor.engine().gpu_count == 0 {
        let mut spec = shell("true");
        spec.needs.gpu_milli = 1000;
        let report = run_spec(spec).await;
        assert!(
            report.outcome().starts_with("infra no GPU of this worker"),
            "{}",
            report.outcome()
        );
    }
}

#[tokio::test]
async fn an_engine_says_who_it_is_and_an_unreachable_one_what_to_do() {
    let engine = executor().await.engine();
    assert!(engine.name.starts_with("Docker Engine "), "{}", engine.name);
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("no.sock");
    let mut settings = settings();
    settings.host = Some(format!("unix://{}", socket.display()));
    let missing = DockerExecutor::connect(settings.clone()).await.unwrap_err();
    assert!(missing.to_string().contains("there is no such socket; install Docker"), "{missing}");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let refused = DockerExecutor::connect(settings.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("nothing listens there; start dockerd"), "{refused}");
    settings.host = Some("ftp://x".into());
    let unknown = DockerExecutor::connect(settings).await.unwrap_err();
    assert!(matches!(unknown, ExecutorError::Unusable { .. }), "{unknown}");
}

#[tokio::test]
async fn under_load_every_log_is_whole() {
    let executor = executor().await;
    let want = lines(5000);
    let spec: TaskSpec = shell("seq 1 5000; seq 1 5000 >&2");
    let runs = futures_util::stream::iter(0..40)
        .map(|_| Run::start(&executor, assign(spec.clone())).end())
        .buffer_unordered(8)
        .collect::<Vec<_>>();
    for report in runs.await {
        assert_eq!(report.outcome(), "exit(0)");
        let is_whole = report.stdout == want && report.stderr == want;
        assert!(is_whole, "{} and {} bytes", report.stdout.len(), report.stderr.len());
    }
}
