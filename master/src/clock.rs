//! The two clocks of a master, read here and nowhere else.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cloudai_model::{Monotonic, Now, Timestamp};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The wall clock, for records.
pub(crate) fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Both clocks.
pub(crate) fn now() -> Now {
    let mono = u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX);
    Now { wall: wall(), mono: Monotonic(mono) }
}

/// The moment of the runtime's clock at which a deadline of the core is due. The core counts in
/// whole milliseconds, so the next one is the first that is surely past it.
pub(crate) fn instant_of(deadline: Monotonic) -> Instant {
    *START + Duration::from_millis(deadline.0.saturating_add(1))
}
