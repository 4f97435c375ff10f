//! One function a scenario.

mod mock;
mod overhead;
mod recovery;

pub(crate) use mock::{array, latency, restart, singles};
pub(crate) use overhead::{Load, overhead};
pub(crate) use recovery::recovery;
