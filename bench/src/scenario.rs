//! One function a scenario.

mod mock;
mod overhead;

pub(crate) use mock::{array, latency, restart, singles};
pub(crate) use overhead::{Load, overhead};
