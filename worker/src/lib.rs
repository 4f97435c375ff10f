//! The worker: registers with a master, runs attempts, and reports them.

mod clock;
pub mod executor;
pub mod logs;
