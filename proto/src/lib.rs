//! The wire: code generated from the protos beside this crate, and `convert`, the one place
//! where wire becomes model and model becomes wire. Knows no socket and no state.

pub mod convert;
pub mod log_record;

/// `package cluster`: masters and workers.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
#[rustfmt::skip]
#[path = "generated/cluster.rs"]
pub mod cluster;

/// `package agent`: masters and scheduling agents.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
#[rustfmt::skip]
#[path = "generated/agent.rs"]
pub mod agent;

/// `package record`: what a worker keeps on its own disk.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
#[rustfmt::skip]
#[path = "generated/record.rs"]
pub mod record;
