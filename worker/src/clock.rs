//! The two clocks, read here and nowhere else.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cloudai_model::{Monotonic, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// The wall clock, for records.
pub(crate) fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The clock of deadlines: the kernel's boot clock, which counts the time that the machine sleeps,
/// so that a lease does not stand still while the master's goes on.
pub(crate) fn mono() -> Monotonic {
    let time = clock_gettime(ClockId::Boottime);
    Monotonic(time.tv_sec.cast_unsigned() * 1000 + time.tv_nsec.cast_unsigned() / 1_000_000)
}

/// Waits until a deadline of this clock is due, also when the machine sleeps meanwhile.
pub(crate) async fn wait_until(deadline: Monotonic) {
    loop {
        match mono().nap_ms(deadline) {
            0 => return,
            nap_ms => tokio::time::sleep(Duration::from_millis(nap_ms)).await,
        }
    }
}
