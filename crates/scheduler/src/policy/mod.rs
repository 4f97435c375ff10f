//! The built-in policies. Each is a pure function of the problem and of what it remembers itself.

mod first_fit;
mod room;
mod round_robin;
mod spread;

pub use first_fit::FirstFit;
pub use round_robin::RoundRobin;
pub use spread::Spread;

use crate::{Plan, Problem};

/// Proposes where waiting work runs.
pub trait Policy: Send {
    /// Its name in settings, status and logs.
    fn name(&self) -> &'static str;

    /// Shares that fit beside each other. A shape that does not fit never keeps a later one from
    /// being placed.
    fn plan(&mut self, problem: &Problem) -> Plan;
}

/// The built-in policies by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PolicyKind {
    /// The first worker, by id, that has room: fills one before it opens the next.
    #[default]
    FirstFit,
    /// Each task on the next worker that has room.
    RoundRobin,
    /// Each task on the worker that stays the emptiest.
    Spread,
}

impl PolicyKind {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::FirstFit, Self::RoundRobin, Self::Spread];

    /// Its name in settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FirstFit => "first_fit",
            Self::RoundRobin => "round_robin",
            Self::Spread => "spread",
        }
    }

    /// The policy with this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// A fresh policy of this kind.
    pub fn build(self) -> Box<dyn Policy> {
        match self {
            Self::FirstFit => Box::new(FirstFit),
            Self::RoundRobin => Box::<RoundRobin>::default(),
            Self::Spread => Box::new(Spread),
        }
    }
}

#[cfg(test)]
mod tests;
