//! The points of a build for tests.

use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};

/// Names the point, and at which hit: `name` or `name:3`.
const VARIABLE: &str = "CLOUDAI_FAILPOINT";

/// Kills this process when the environment names this point and the hit is the one.
pub fn hit(name: &str) {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        let value = std::env::var(VARIABLE).ok()?;
        Some(Armed::parse(&value).unwrap_or_else(|| panic!("{VARIABLE}={value} is no failpoint")))
    });
    if armed.as_ref().is_some_and(|armed| armed.is_due(name)) {
        die(name);
    }
}

/// The point at which this process is to die.
struct Armed {
    name: String,
    /// Hits until then; 0 when it is over.
    left: AtomicU64,
}

impl Armed {
    fn parse(value: &str) -> Option<Self> {
        let (name, hits) = match value.split_once(':') {
            Some((name, hits)) => (name, hits.parse().ok().filter(|hits| *hits > 0)?),
            None => (value, 1),
        };
        (!name.is_empty()).then(|| Self { name: name.to_owned(), left: AtomicU64::new(hits) })
    }

    fn is_due(&self, name: &str) -> bool {
        let count_down = |left: u64| left.checked_sub(1);
        let order = Ordering::Relaxed;
        self.name == name && self.left.fetch_update(order, order, count_down) == Ok(1)
    }
}

/// As `kill -9` from outside: no destructor runs and no buffer is written.
fn die(name: &str) -> ! {
    // Who watches knows by it that the point was reached; the end comes all the same without.
    drop(writeln!(std::io::stderr(), "failpoint {name}: killed"));
    kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_due_once_at_its_hit() {
        for (value, due) in [("a.b", [true, false, false]), ("a.b:2", [false, true, false])] {
            let armed = Armed::parse(value).unwrap();
            let got = [(); 3].map(|()| {
                assert!(!armed.is_due("a.c"));
                armed.is_due("a.b")
            });
            assert_eq!(got, due, "{value}");
        }
    }

    #[test]
    fn nonsense_is_no_point() {
        for value in ["", ":1", "a:", "a:0", "a:x", "a:-1"] {
            assert!(Armed::parse(value).is_none(), "{value}");
        }
    }
}
