//! What a worker keeps on its disk of an attempt, as bytes and back. The bytes come from a file
//! that may be damaged: everything is checked, as if a peer had sent it.

use std::sync::Arc;

use cloudai_model::{AttemptId, Cause, Outcome, ReportWhat, Session, TaskSpec, Timestamp};
use prost::Message;

use super::{ConvertError, from_wire, to_wire};
use crate::record::{Accepted, Created, Ended, Step, Stopping, step};

/// One step of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordStep {
    /// The worker has it; nothing of it exists yet.
    Accepted {
        /// Which.
        attempt: AttemptId,
        /// Under which it came.
        session: Session,
        /// The kernel's boot id of that moment.
        boot_id: String,
        /// What it runs.
        spec: Arc<TaskSpec>,
    },
    /// Its container exists and may be started at any moment.
    Created,
    /// Its container is about to get the signal that ends it.
    Stopping {
        /// Why.
        cause: Cause,
        /// When that began: what ended before has an end of its own.
        begun_at: Timestamp,
        /// When it gets SIGKILL.
        kill_at: Timestamp,
    },
    /// It is over.
    Ended {
        /// When its container started, if it did.
        started_at: Option<Timestamp>,
        /// How it ended.
        outcome: Outcome,
        /// When.
        at: Timestamp,
        /// Files of `/output`, relative, with `/` between the parts.
        files: Vec<String>,
    },
}

/// A step as bytes.
pub fn encode(of: &RecordStep) -> Vec<u8> {
    let step = match of {
        RecordStep::Accepted { attempt, session, boot_id, spec } => {
            step::Step::Accepted(Accepted {
                attempt: attempt.to_string(),
                session: session.0,
                boot_id: boot_id.clone(),
                spec: Some(to_wire::spec(spec)),
            })
        }
        RecordStep::Created => step::Step::Created(Created {}),
        RecordStep::Stopping { cause, begun_at, kill_at } => step::Step::Stopping(Stopping {
            cause: to_wire::cause_word(*cause).to_owned(),
            kill_at_unix_ms: kill_at.0,
            begun_at_unix_ms: begun_at.0,
        }),
        RecordStep::Ended { started_at, outcome, at, files } => step::Step::Ended(Ended {
            end: Some(to_wire::ended(*started_at, outcome, *at)),
            files: files.clone(),
        }),
    };
    Step { step: Some(step) }.encode_to_vec()
}

/// A step from bytes.
pub fn decode(bytes: &[u8]) -> Result<RecordStep, ConvertError> {
    let step = Step::decode(bytes).map_err(|error| ConvertError::new("step", error.to_string()))?;
    let missing = |field| ConvertError::new(field, "is missing");
    Ok(match step.step.ok_or_else(|| missing("step"))? {
        step::Step::Accepted(accepted) => RecordStep::Accepted {
            attempt: from_wire::attempt(&accepted.attempt)?,
            session: Session(accepted.session),
            boot_id: accepted.boot_id,
            spec: Arc::new(from_wire::spec(accepted.spec.ok_or_else(|| missing("spec"))?)?),
        },
        step::Step::Created(Created {}) => RecordStep::Created,
        step::Step::Stopping(stopping) => RecordStep::Stopping {
            cause: from_wire::cause(&stopping.cause, 0)?,
            begun_at: Timestamp(stopping.begun_at_unix_ms),
            kill_at: Timestamp(stopping.kill_at_unix_ms),
        },
        step::Step::Ended(ended) => {
            match from_wire::ended(ended.end.ok_or_else(|| missing("end"))?)? {
                ReportWhat::Ended { started_at, outcome, at } => {
                    RecordStep::Ended { started_at, outcome, at, files: ended.files }
                }
                ReportWhat::Accepted | ReportWhat::Started(_) => return Err(missing("end")),
            }
        }
    })
}
