//! The harness of the end-to-end tests: the real binary, a real Docker engine, real processes that
//! are really killed.
//!
//! It knows CloudAI only from outside: by its command line, its output, its HTTP API and the wire.
//! It never mocks anything, never sleeps for a time instead of waiting for a state, and takes no
//! fixed port or directory, so that tests run side by side. Whatever a test starts is gone when the
//! test ends, however it ends.
//!
//! Read next: `cluster.rs` (a master with its workers), `process.rs` (a process and what it says).

mod binary;
pub mod chaos;
mod cluster;
pub mod crash;
pub mod disk;
pub mod engine;
pub mod fake_engine;
pub mod history;
pub mod judge;
pub mod private_engine;
mod process;
pub mod proxy;
mod registry;
pub mod seed;
mod terminal;
mod watch;
mod web;

pub use binary::{Ran, cloudai, links, root, run};
pub use cluster::{Cluster, Console, Worker};
pub use engine::{BUSYBOX, SAMPLE};
pub use process::{Mark, Process};
pub use registry::empty_registry;
pub use watch::{Life, Watch};
pub use web::{Answer, Api};

use std::time::{Duration, Instant};

/// How long a state is waited for before the test fails. Far above what any of them takes.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Pause between two looks at a state that cannot be waited for otherwise.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Waits until `look` finds something, and fails with `what` when it never does.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {} s: {what}", PATIENCE.as_secs());
        std::thread::sleep(LOOK_EVERY);
    }
}
