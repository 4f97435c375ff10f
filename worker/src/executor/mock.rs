//! An executor without an engine, for trying the system out and for measuring it: it runs a few
//! words instead of a container. The image is ignored; the invocation is read as steps that are
//! separated by `;` (or one step, when it is an argument vector):
//!
//! - `sleep 0.1` waits so many seconds,
//! - `echo some text` writes a line to the log,
//! - `write name some text` makes the file `name` of `/output`,
//! - `exit 3` ends with this code.
//!
//! No steps at all is a success at once. It must behave like the real thing where the ledger can
//! see it: one start, one end, and a stop that is honoured.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use cloudai_model::{Cause, Invocation, Outcome, TaskSpec};
use cloudai_proto::log_record::LogStream;

use super::{Ended, Progress, RunChannels, StopRequest};
use crate::clock;

/// Longest sleep of one step: what does not fit in a week is a typing error.
const SLEEP_SECONDS_MAX: f64 = 604_800.0;

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Sleep(Duration),
    Echo(String),
    Write(PathBuf, String),
    Exit(i32),
}

/// The outcome of a spec that needs neither time nor a log: it can be told at once.
pub fn find_instant(spec: &TaskSpec) -> Option<Outcome> {
    if spec.invocation == Invocation::Image {
        return Some(Outcome::new(Cause::Exit(0), ""));
    }
    match steps(&spec.invocation) {
        Err(outcome) => Some(outcome),
        Ok(steps) => match steps.as_slice() {
            [] => Some(Outcome::new(Cause::Exit(0), "")),
            [Step::Exit(code), ..] => Some(Outcome::new(Cause::Exit(*code), "")),
            _ => None,
        },
    }
}

/// Runs the steps of a spec to their end, or to the stop.
pub async fn run(spec: &TaskSpec, mut channels: RunChannels) -> Ended {
    let started_at = clock::wall();
    // A receiver that is gone wants no progress; the attempt goes on.
    let _ = channels.progress.send(Progress::Started(started_at)).await;
    let mut files = Vec::new();
    let mut stop = channels.stop.clone();
    let timeout = spec.limits.timeout_ms.map(Duration::from_millis);
    let outcome = tokio::select! {
        biased;
        request = stopped(&mut stop) => Outcome::new(request.cause, ""),
        () = elapsed(timeout) => Outcome::new(Cause::Timeout, "ran longer than its time-out"),
        outcome = run_steps(spec, &mut channels, &mut files) => outcome,
    };
    // An end that the disk refused matters to another process, for which nothing of this is kept.
    drop(channels.log.finish().await);
    Ended { outcome, started_at: Some(started_at), at: clock::wall(), files }
}

async fn stopped(stop: &mut tokio::sync::watch::Receiver<Option<StopRequest>>) -> StopRequest {
    loop {
        if let Some(request) = *stop.borrow_and_update() {
            return request;
        }
        if stop.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn elapsed(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

async fn run_steps(
    spec: &TaskSpec,
    channels: &mut RunChannels,
    files: &mut Vec<PathBuf>,
) -> Outcome {
    let steps = match steps(&spec.invocation) {
        Ok(steps) => steps,
        Err(outcome) => return outcome,
    };
    for step in steps {
        match step {
            Step::Sleep(duration) => tokio::time::sleep(duration).await,
            Step::Echo(mut line) => {
                line.push('\n');
                channels.log.write(LogStream::Stdout, clock::wall(), line.as_bytes()).await;
            }
            Step::Write(name, text) => {
                let path = channels.output_dir.join(&name);
                let written = async {
                    tokio::fs::create_dir_all(&channels.output_dir).await?;
                    tokio::fs::write(&path, text).await
                };
                if let Err(error) = written.await {
                    let why = format!("cannot write {}: {error}", path.display());
                    return Outcome::new(Cause::Infra, why);
                }
                files.push(name);
            }
            Step::Exit(code) => return Outcome::new(Cause::Exit(code), ""),
        }
    }
    Outcome::new(Cause::Exit(0), "")
}

/// The steps of an invocation, or how it ends when it has none that exist.
fn steps(invocation: &Invocation) -> Result<Vec<Step>, Outcome> {
    match invocation {
        Invocation::Image => Ok(Vec::new()),
        Invocation::Arguments(words) => {
            let words = words.iter().map(String::as_str).collect::<Vec<_>>();
            Ok(step(&words)?.into_iter().collect())
        }
        Invocation::Shell(text) => text
            .split(';')
            .filter_map(|part| step(&part.split_whitespace().collect::<Vec<_>>()).transpose())
            .collect(),
    }
}

fn step(words: &[&str]) -> Result<Option<Step>, Outcome> {
    let unknown = || {
        let why = format!("mock: '{}' is not sleep, echo, write or exit", words.join(" "));
        Outcome::new(Cause::Exit(127), why)
    };
    Ok(Some(match words {
        [] => return Ok(None),
        ["sleep", seconds] => {
            let seconds = seconds.parse::<f64>().map_err(|_| unknown())?;
            if !(0.0..=SLEEP_SECONDS_MAX).contains(&seconds) {
                return Err(unknown());
            }
            Step::Sleep(Duration::from_secs_f64(seconds))
        }
        ["echo", text @ ..] => Step::Echo(text.join(" ")),
        ["write", name, text @ ..] if is_plain(name) => {
            Step::Write(PathBuf::from(name), text.join(" "))
        }
        ["exit", code] => Step::Exit(code.parse().map_err(|_| unknown())?),
        _ => return Err(unknown()),
    }))
}

fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::AttemptRecord;
    use cloudai_model::TaskSpec;
    use tokio::sync::{mpsc, watch};

    fn spec(text: &str) -> TaskSpec {
        let mut spec = TaskSpec::new("mock", TaskSpec::DEFAULT_NEEDS);
        spec.invocation = Invocation::Shell(text.to_owned());
        spec
    }

    async fn check(text: &str, stop: Option<StopRequest>, want: &str) {
        let dir = tempfile::tempdir().unwrap();
        let (log, _spool) = crate::logs::open(dir.path().join("log"), 2 << 20);
        let (progress, mut progressed) = mpsc::channel(1);
        let (_stop, stop) = watch::channel(stop);
        let output_dir = dir.path().join("output");
        let record = AttemptRecord::unkept();
        let channels = RunChannels { progress, log, stop, output_dir, record };
        let ended = run(&spec(text), channels).await;
        assert!(matches!(progressed.recv().await, Some(Progress::Started(_))));
        assert_eq!(format!("{} {:?}", ended.outcome.cause, ended.files), want, "{text}");
    }

    #[tokio::test]
    async fn the_words_of_an_invocation_are_its_steps() {
        check("", None, "exit(0) []").await;
        check("echo hello; sleep 0.001; exit 3; echo never", None, "exit(3) []").await;
        check("write result.json {}; echo done", None, "exit(0) [\"result.json\"]").await;
        check("write ../escape x", None, "exit(127) []").await;
        check("sleep -1", None, "exit(127) []").await;
        check("rm -rf", None, "exit(127) []").await;
    }

    #[tokio::test]
    async fn a_stop_ends_the_attempt_with_the_cause_it_names() {
        let stop = StopRequest { cause: Cause::Cancelled, grace_ms: 0 };
        check("sleep 1000", Some(stop), "cancelled []").await;
    }

    #[test]
    fn only_what_needs_neither_time_nor_a_log_is_instant() {
        let told = |text: &str| find_instant(&spec(text)).map(|outcome| outcome.cause);
        assert_eq!(told(""), Some(Cause::Exit(0)));
        assert_eq!(told("exit 7; sleep 1"), Some(Cause::Exit(7)));
        assert_eq!(told("echo x"), None);
        assert_eq!(told("sleep 0"), None);
    }
}
