//! What is made of a container that has ended: its outcome, the rest of its log, and its files. It
//! must never call a task a success whose files are lost. Read next: `end.rs` and `output.rs`.

use std::io;
use std::path::PathBuf;

use bollard::models::{ContainerInspectResponse, ContainerState, ContainerStateStatusEnum};
use cloudai_failpoint::failpoint;
use cloudai_model::{Cause, Outcome, Timestamp};

use super::super::OUTPUT_PATH;
use super::super::engine::{finished_at, time};
use super::super::output::{self, Gathered};
use super::super::wait::{self, Finish, Waited};
use super::{Life, end};
use crate::clock;
use crate::executor::Ended;

/// What became of a container that is not ours to remove any more.
const REMOVED_WORDS: &str = "somebody else removed the container while the task ran";

/// What the engine gives for a process that SIGKILL ended.
const KILLED_CODE: i64 = 137;

impl Life {
    /// Step 5: what the engine recorded, what is missing of the log, and the files.
    pub(super) async fn collect(&mut self, id: &str, waited: Waited) -> Result<Ended, Outcome> {
        let docker = self.shared.docker.clone();
        let Waited { finish, was_away, inspected } = waited;
        let Some(inspected) = inspected else {
            return Err(match finish {
                Finish::Stopped(request) => Outcome::new(request.cause, ""),
                _ => Outcome::new(Cause::Infra, REMOVED_WORDS),
            });
        };
        let inspected = self.with_oom(id, inspected).await;
        let state = inspected.state.clone().unwrap_or_default();
        let at = finished_at(&state).unwrap_or_else(clock::wall);
        self.log.complete(&docker, id, at, was_away || self.is_resumed).await;
        let started_at = self.started_at;
        let finish = end::settle(&docker, id, (finish, was_away), &state).await;
        let mut outcome = self.outcome(&finish, &state, at);
        if self.stop.is_abandoned() {
            return Ok(Ended { outcome, started_at, at, files: Vec::new() });
        }
        failpoint!("worker.files.before_gather");
        let files = self.take_files(id, &inspected, &mut outcome).await;
        Ok(Ended { outcome, started_at, at, files })
    }

    /// What the engine says of the container when it has heard from the kernel as well: that memory
    /// ran out may come to it a moment after the end.
    async fn with_oom(
        &self,
        id: &str,
        inspected: Box<ContainerInspectResponse>,
    ) -> Box<ContainerInspectResponse> {
        let state = inspected.state.as_ref();
        if state.and_then(|state| state.exit_code) != Some(KILLED_CODE)
            || state.and_then(|state| state.oom_killed) == Some(true)
        {
            return inspected;
        }
        let (later, _) = wait::inspect(&self.shared.docker, id).await;
        later.map_or(inspected, Box::new)
    }

    /// The files of the output. A result that is lost is no success; another failure keeps its own
    /// cause.
    async fn take_files(
        &self,
        id: &str,
        inspected: &ContainerInspectResponse,
        outcome: &mut Outcome,
    ) -> Vec<PathBuf> {
        match self.gather(id, inspected).await {
            Ok(gathered) => {
                for note in gathered.notes() {
                    self.note(note).await;
                }
                gathered.files
            }
            Err(error) => {
                let words = format!("the files of {OUTPUT_PATH} cannot be kept: {error}");
                if outcome.cause.is_success() {
                    *outcome = Outcome::new(Cause::Infra, words);
                } else {
                    self.note(words).await;
                }
                Vec::new()
            }
        }
    }

    fn outcome(&self, finish: &Finish, state: &ContainerState, at: Timestamp) -> Outcome {
        let code = state.exit_code.unwrap_or(-1) as i32;
        let overrun = self.find_overrun(at).filter(|_| code != 0);
        match (finish, overrun) {
            (Finish::Stopped(request), _) => Outcome::new(request.cause, ""),
            (Finish::TimedOut { timeout_ms }, _) if !ended_in_time(state, *timeout_ms) => {
                timed_out(*timeout_ms)
            }
            // An earlier process may have stopped it for that; a success is kept in any case.
            (_, Some(timeout_ms)) => timed_out(timeout_ms),
            (Finish::EngineFailed, None) if code != 0 => {
                let words =
                    format!("the engine was restarted while the task ran (exit code {code})");
                Outcome::new(Cause::Infra, words)
            }
            (Finish::StoppedOutside, None) => {
                let words = format!(
                    "the container was stopped through the engine, and not by CloudAI: the engine \
                     was shut down, or somebody stopped it by hand (exit code {code})"
                );
                Outcome::new(Cause::Infra, words)
            }
            // Its removal began before its end: that is what killed it.
            _ if state.status == Some(ContainerStateStatusEnum::REMOVING) => {
                Outcome::new(Cause::Infra, REMOVED_WORDS)
            }
            // The record is also set when only a child was killed and the task went on.
            _ if state.oom_killed == Some(true) && code != 0 => {
                let memory = self.assignment.spec.needs.memory_bytes;
                let words = format!("used more than its {memory} bytes of memory");
                Outcome::new(Cause::Oom, words)
            }
            _ => Outcome::new(Cause::Exit(code), state.error.clone().unwrap_or_default()),
        }
    }

    /// The time-out that a container was over before it was taken up.
    fn find_overrun(&self, at: Timestamp) -> Option<u64> {
        let ran_ms = at.ms_since(self.started_at.filter(|_| self.is_resumed)?);
        self.assignment.spec.limits.timeout_ms.filter(|timeout_ms| ran_ms >= *timeout_ms)
    }

    async fn gather(&self, id: &str, inspected: &ContainerInspectResponse) -> io::Result<Gathered> {
        let mounts = inspected.mounts.iter().flatten();
        let volume = mounts
            .into_iter()
            .find(|mount| output::is_own(mount, &self.shared.settings))
            .and_then(|mount| mount.source.as_ref())
            .filter(|_| self.shared.features.is_local);
        if let Some(source) = volume
            && let Some(gathered) =
                output::gather_local(source.as_ref(), &self.output_dir, self.is_resumed).await
        {
            return gathered;
        }
        output::gather_archive(&self.shared.docker, id, &self.output_dir).await
    }
}

fn timed_out(timeout_ms: u64) -> Outcome {
    Outcome::new(Cause::Timeout, format!("ran longer than its time-out of {timeout_ms} ms"))
}

/// Whether the engine says that a container was over before its time-out, which came only because
/// nobody looked meanwhile.
fn ended_in_time(state: &ContainerState, timeout_ms: u64) -> bool {
    let ran = time(state.started_at.as_deref()).zip(finished_at(state));
    ran.is_some_and(|(started_at, at)| at.ms_since(started_at) < timeout_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_saw_end_before_its_time_out_ended_in_time() {
        let state = |finished_at: &str| ContainerState {
            started_at: Some("2026-01-01T00:00:00Z".to_owned()),
            finished_at: Some(finished_at.to_owned()),
            ..ContainerState::default()
        };
        assert!(ended_in_time(&state("2026-01-01T00:00:01.999Z"), 2_000));
        assert!(!ended_in_time(&state("2026-01-01T00:00:02Z"), 2_000));
        assert!(!ended_in_time(&state("0001-01-01T00:00:00Z"), 2_000));
    }
}
