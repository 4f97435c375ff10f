//! Points at which a test kills the process that passes them, as `kill -9` at the worst moment.
//!
//! `CLOUDAI_FAILPOINT=master.placed.after_commit:3` ends the process by SIGKILL when it passes that
//! point for the third time (`:1` when no number is given): nothing is flushed, closed or said
//! goodbye. Without the feature `enabled` a point is nothing at all: no code, no name, no look at
//! the environment. A program that is shipped must never be built with it.
//!
//! A point's name is `<process>.<what happens>.<moment>`. Each stands once in the sources, and in
//! the list of the end-to-end test that enumerates them (`e2e/tests/c_crash_points.rs`). The crate
//! `fail` is not used for this: it brings a registry, chance and a language of actions, and has no
//! action that kills.

#[cfg(feature = "enabled")]
mod armed;

#[cfg(feature = "enabled")]
pub use armed::hit;

/// Whether this build has failpoints: for places that would have to look for a point's name.
pub const ENABLED: bool = cfg!(feature = "enabled");

/// A point at which a test may kill this process.
#[cfg(feature = "enabled")]
#[macro_export]
macro_rules! failpoint {
    ($name:expr) => {
        $crate::hit($name)
    };
}

/// A point at which a test may kill this process; nothing in this build.
#[cfg(not(feature = "enabled"))]
#[macro_export]
macro_rules! failpoint {
    ($name:expr) => {
        ()
    };
}

#[cfg(all(test, not(feature = "enabled")))]
mod tests {
    /// A call of a function that looks at the environment would not compile in a constant.
    const NOTHING: () = failpoint!("never.hit");

    #[test]
    fn a_point_is_nothing_in_a_build_that_is_shipped() {
        const { assert!(!super::ENABLED) };
        assert_eq!(size_of_val(&NOTHING), 0);
    }
}
