//! The seed of a test that draws by chance: given by the environment, or new each time. It is said
//! at once, so that whatever fails later, its output says how to draw the same again.

use std::time::SystemTime;

/// The number that `variable` gives, or none.
pub fn number(variable: &str) -> Option<u64> {
    parse(variable, std::env::var(variable).ok()?.as_str())
}

fn parse(variable: &str, value: &str) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is no number")))
}

/// The seed that `variable` gives, or a new one.
#[expect(clippy::print_stderr, reason = "the seed of a run belongs to its output")]
pub fn seed(variable: &str) -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("the clock is behind 1970");
    let seed = number(variable).unwrap_or(since.as_micros() as u64);
    eprintln!("{variable}={seed} draws the same again");
    seed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_number_or_not_given() {
        assert_eq!(parse("SEED", "7"), Some(7));
        assert_eq!(parse("SEED", ""), None);
    }

    #[test]
    #[should_panic(expected = "SEED=x is no number")]
    fn a_seed_that_is_no_number_does_not_run_something_else() {
        parse("SEED", "x");
    }
}
