//! The border between the API and the model: `request.rs` makes what a client sent into validated
//! model types, `answer.rs` makes what the core and the store know into API types. Nothing else in
//! this module tree knows both.

mod answer;
mod request;

pub(super) use answer::{
    attempts, explanation, job_view, queue_view, running_task, spec_view, spent, task_counts,
    task_outcome, task_status, task_summary, worker_counts, worker_view,
};
pub(super) use request::{model_status, submission};
