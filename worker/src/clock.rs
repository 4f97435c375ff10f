//! The two clocks, read here and nowhere else.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use cloudai_model::{Monotonic, Now, Timestamp};

/// The wall clock, for records.
pub(crate) fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The clock of deadlines. Linux's boot clock would count suspend; std's does not, so a worker that
/// was suspended hears of the lost time only by the master's next answer.
pub(crate) fn mono() -> Monotonic {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = START.get_or_init(Instant::now).elapsed();
    Monotonic(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Both.
pub(crate) fn now() -> Now {
    Now { wall: wall(), mono: mono() }
}
