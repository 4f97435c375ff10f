//! The master's core: decides what becomes true, and what is to be done about it.
//!
//! `Core::step(now, input)` takes one command and gives a [`Batch`] of events and effects. The
//! events are stored first, by [`Batch::commit`]; only then do the effects exist for anyone else.
//!
//! **Architecture Invariant:** nothing in this crate reads a clock, draws chance, does IO, waits,
//! locks or hashes. Time and ids come in with the command. The same inputs give the same outputs.
//!
//! Read next: `command.rs` (what comes in), `steps/` (one file a command, all its consequences on
//! one screen), `facts.rs` (the only place that changes durable state), `core.rs` (the frame).

mod batch;
mod breaker;
mod command;
mod core;
mod explain;
mod facts;
mod liveness;
mod pace;
mod queue;
mod steps;
mod view;

pub use batch::{Batch, Effect, Order};
pub use command::{
    Answer, CancelTarget, Command, FullReport, Input, Placement, Refused, Rejection, StreamNo,
    Submission, Token, WorkerHello,
};
pub use core::{Core, Settings, bounds};
pub use explain::{Explanation, Wait, WorkerVerdict};
pub use facts::{Facts, RestoreError};
pub use view::{ClusterView, HeldView, LiveCounts, PendingTask, WaitingView, WorkerStatus};

#[cfg(test)]
mod tests;
