//! Seeds that failed because of a real bug, each by the name of what it was. A seed chooses all of
//! a run, so a change of the simulator can give it another world; the bug itself is held by a test
//! of the core that had it, which each names.

use cloudai_sim::check_seed;

fn check(seed: u64) {
    if let Err(failure) = check_seed(seed, None) {
        panic!("seed {seed}: {}\n{}", failure.why, failure.history.join("\n"));
    }
}

/// `the_ledger_is_bounded_and_says_no_at_its_bound` of worker-core.
#[test]
fn seed_1065_a_refused_attempt_was_started_by_an_assign_that_came_late() {
    check(1065);
}
