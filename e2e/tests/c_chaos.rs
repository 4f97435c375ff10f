//! A cluster under load and chance faults; a judge who knows the promises. `make chaos` runs the
//! same for longer, and with a seed that is given.
#![allow(clippy::unwrap_used, reason = "all of this is a test, its small functions as well")]

use std::time::Duration;

use cloudai_e2e::chaos::{Faults, Plan, run};
use cloudai_e2e::seed::{number, seed};

/// How long faults happen in a run that is told nothing else.
const SECONDS: u64 = 60;

#[expect(clippy::print_stderr, reason = "what happened in a run belongs to its output")]
fn check(seconds: u64, workers: usize, faults: Faults) {
    let seed = seed("CLOUDAI_CHAOS_SEED");
    eprintln!("chaos: {seconds} s with {faults:?}");
    let report = run(Plan { seed, length: Duration::from_secs(seconds), workers, faults });
    let report = report.expect("interrupted: nothing was judged, and nothing is left behind");
    eprintln!("{report}");
    assert!(report.broken.is_empty(), "{report}");
    assert!(report.accepted > 0 && !report.faults.is_empty(), "nothing happened: {report}");
}

#[test]
fn c_chaos_every_promise_is_kept() {
    let seconds = number("CLOUDAI_CHAOS_MINUTES").map_or(SECONDS, |minutes| minutes * 60);
    check(seconds, 3, Faults::All);
}

#[test]
fn c2_master_killed_again_and_again() {
    check(SECONDS, 2, Faults::MasterKills);
}
