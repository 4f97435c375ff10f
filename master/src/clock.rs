//! The two clocks of a master, read here and nowhere else.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cloudai_model::{Monotonic, Now, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// Where the clock of deadlines begins.
static START_MS: LazyLock<u64> = LazyLock::new(boot_ms);

/// The kernel's boot clock, which counts the time that the machine sleeps: a lease does not stand
/// still meanwhile, on no worker and not here.
fn boot_ms() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.cast_unsigned() * 1_000 + time.tv_nsec.cast_unsigned() / 1_000_000
}

/// The wall clock, for records.
pub(crate) fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The clock of deadlines.
fn mono() -> Monotonic {
    // The start is read first: it cannot lie behind what is read after it.
    let start_ms = *START_MS;
    Monotonic(boot_ms() - start_ms)
}

/// Both clocks.
pub(crate) fn now() -> Now {
    Now { wall: wall(), mono: mono() }
}

/// Waits until a deadline of the core is due, also when the machine sleeps meanwhile. The core
/// counts in whole milliseconds, so the next one is the first that is surely past it.
pub(crate) async fn wait_until(deadline: Monotonic) {
    let due = deadline.plus_ms(1);
    loop {
        match mono().nap_ms(due) {
            0 => return,
            nap_ms => tokio::time::sleep(Duration::from_millis(nap_ms)).await,
        }
    }
}
