//! `backup` and `restore`: they work on directories of this machine and ask no master.

use std::io::Write as _;
use std::path::Path;

use cloudai_cli::grammar::{BackupArgs, RestoreArgs};
use cloudai_cli::{Failure, Screen, Settings, exit, show_bytes, show_time, write_json};
use cloudai_master::backup::{
    BackupError, BackupRequest, Manifest, Progress, RestoreRequest, Restored, TasksPart, back_up,
    restore,
};

use crate::roles;

/// `cloudai backup`.
pub(crate) fn take(settings: &mut Settings, args: &BackupArgs, json: bool) -> Result<u8, Failure> {
    let mut screen = Screen::standard();
    let data_dir = settings.data_dir(args.data_dir.clone())?;
    let request = BackupRequest { data_dir, to: args.to.clone(), store_only: args.store_only };
    let mut told = Told::default();
    let made = back_up(&request, &mut |progress| told.tell(&mut screen, progress));
    told.end(&mut screen);
    let manifest = made.map_err(|error| failure(&error))?;
    if json {
        write_json(&mut screen, &manifest)?;
    } else {
        screen.line(format!("Backup {}: {}", args.to.display(), contents(&manifest)))?;
    }
    Ok(exit::OK)
}

/// `cloudai restore`.
pub(crate) fn bring_back(
    settings: &mut Settings,
    args: &RestoreArgs,
    json: bool,
) -> Result<u8, Failure> {
    let mut screen = Screen::standard();
    let data_dir = settings.data_dir(args.data_dir.clone())?;
    let mut told = Told::default();
    let (backup, skip_damaged) = (args.backup.clone(), args.skip_damaged);
    let request = RestoreRequest { backup, data_dir, skip_damaged };
    let made = restore(&request, &mut |progress| told.tell(&mut screen, progress));
    told.end(&mut screen);
    let restored = made.map_err(|error| failure(&error))?;
    let data_dir = request.data_dir;
    if json {
        let Restored { manifest, lost_ms: _, numbers, left_out } = restored;
        let answer = Answer {
            data_dir: &data_dir,
            lost_after_ms: manifest.made_at_ms,
            next_job: numbers.last_job + 1,
            epoch: numbers.epoch(),
            left_out: left_out.iter().map(ToString::to_string).collect(),
            backup: &manifest,
        };
        write_json(&mut screen, &answer)?;
    } else {
        tell_restored(&mut screen, &data_dir, &restored)?;
    }
    Ok(exit::OK)
}

/// What `restore --json` writes.
#[derive(serde::Serialize)]
struct Answer<'a> {
    data_dir: &'a Path,
    /// What was accepted after this moment is lost; Unix milliseconds.
    lost_after_ms: u64,
    /// The number of the next job.
    next_job: u64,
    /// The history that begins with this restore.
    epoch: u32,
    /// Damaged logs and files, each with what is wrong.
    left_out: Vec<String>,
    backup: &'a Manifest,
}

fn tell_restored(screen: &mut Screen, data_dir: &Path, restored: &Restored) -> Result<(), Failure> {
    let Restored { manifest, lost_ms, numbers, left_out } = restored;
    let dir = data_dir.display();
    let made_at = show_time(manifest.made_at_ms);
    screen.line(format!("Restored into {dir}: {}", contents(manifest)))?;
    for damage in left_out {
        screen.line(format!("Left out: {damage}"))?;
    }
    screen.line(format!("Lost: everything that was accepted or ended after {made_at}."))?;
    let next = numbers.last_job + 1;
    let epoch = numbers.epoch();
    screen.line(format!(
        "Fenced: epoch {epoch}; jobs go on at job-{next}, so that no id is given twice. The backup \
         is {} old by this machine's clock; if that is wrong, set the clock right and restore \
         again, into another directory, before a master starts.",
        show_age(*lost_ms)
    ))?;
    screen.line(format!("Next: cloudai master --data-dir {dir}"))?;
    screen.line(
        "Workers come back by themselves. What they run and the backup knows goes on; the rest is \
         stopped and removed. Tasks that ended after the backup run again: submit anew only what \
         was submitted after it.",
    )
}

/// How long, in the two largest units that say something.
fn show_age(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

fn contents(manifest: &Manifest) -> String {
    let TasksPart { queued, assigned, running, succeeded, failed, cancelled } =
        &manifest.store.tasks;
    let live = queued + assigned + running;
    let ended = succeeded + failed + cancelled;
    let store = show_bytes(manifest.store.bytes);
    let files = match &manifest.files {
        Some(files) => format!("{} files of tasks ({})", files.count, show_bytes(files.bytes)),
        None => "no logs and files".to_owned(),
    };
    let last = manifest.store.last_job;
    format!("jobs up to {last}; {live} tasks to do, {ended} ended; store {store}; {files}")
}

/// Progress for a person at a terminal; a script is told nothing before the end.
#[derive(Default)]
struct Told {
    /// Columns of the line that stands there.
    width: usize,
}

impl Told {
    fn tell(&mut self, screen: &mut Screen, progress: Progress) {
        if !screen.progress {
            return;
        }
        let text = match progress {
            Progress::Store(done, all) => {
                format!("copying the store: {} %", done * 100 / all.max(1))
            }
            Progress::Check => "checking the store".to_owned(),
            Progress::Files(count, bytes) => {
                format!("copying logs and files: {count} ({})", show_bytes(bytes))
            }
            Progress::Sync => "bringing everything to the disk".to_owned(),
        };
        self.write(screen, &text);
    }

    fn write(&mut self, screen: &mut Screen, text: &str) {
        // Progress is never worth failing for.
        let _ = write!(screen.err, "\r{text:width$}", width = self.width);
        let _ = screen.err.flush();
        self.width = text.len();
    }

    /// Clears the line.
    fn end(&mut self, screen: &mut Screen) {
        if self.width > 0 {
            self.write(screen, "");
            self.write(screen, "");
        }
    }
}

/// What the command line did wrong has another exit code than what went wrong.
fn failure(error: &BackupError) -> Failure {
    let failure = roles::failure(error);
    match error {
        BackupError::NotEmpty { .. }
        | BackupError::Inside { .. }
        | BackupError::NoBackup { .. }
        | BackupError::Occupied { .. } => Failure { exit: exit::USAGE, ..failure },
        _ => failure,
    }
}
