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

/// `an_attempt_that_was_just_given_again_is_taken_back_before_it_goes_elsewhere` of master-core.
#[test]
fn seed_21293_an_attempt_was_given_up_while_its_last_assign_was_under_way() {
    check(21293);
}

/// `a_hello_over_an_older_stream_is_refused` of master-core.
#[test]
fn seed_24148_a_hello_that_was_given_up_came_after_the_next() {
    check(24148);
}

/// `a_hello_of_a_killed_process_does_not_put_the_next_one_out` of master-core.
#[test]
fn seed_78000623_a_hello_of_a_killed_process_came_after_that_of_the_next() {
    check(78_000_623);
}

/// `a_wait_for_another_try_goes_on_and_ends_without_another_event` of master-core.
#[test]
fn seed_184_what_waited_for_another_try_waited_for_ever_after_a_turn_that_was_not_kept() {
    check(184);
}
