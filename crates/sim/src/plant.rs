//! Bugs that are planted on purpose, in the simulator's own shell and never in the cores: a judge
//! that never found one proves nothing. Each stands for a defect that a real shell could have.

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plant {
    /// Effects leave before the commit, and the master may die in between.
    EffectsBeforeCommit,
    /// Reports of older attempts count as if they were of the present one.
    NoFence,
    /// A plan that is wanted is now and then not made.
    LostWakeUp,
    /// A worker that was unwell once never gets well for its master.
    HealthKept,
    /// The worker does not look at its leases.
    LeaseIgnored,
    /// The worker's lease counts from when the acknowledgement came, not from when the report left.
    LeaseFromAnswer,
    /// `forget` leaves before the end is stored.
    ForgetBeforeCommit,
    /// An assign that comes again is run again.
    DoubleStart,
    /// Each worker is registered with twice what it has.
    Oversell,
    /// The store now and then answers without having stored.
    LostCommit,
    /// A master whose store has no room goes on with what it has in mind.
    FullIgnored,
    /// A submit's request id is not looked up in the store.
    RequestForgotten,
    /// A cancel is answered, but does not reach the core.
    CancelDropped,
    /// What is cancelled gives its room back before its container is gone.
    RoomTooSoon,
    /// A cancel of one task of an array cancels the next one as well.
    CancelTooMany,
    /// A cancel is now and then refused, as if nothing lived that it is about.
    CancelRefused,
    /// It is not looked at over which stream a hello came, so that one that was given up counts
    /// when it comes late.
    LateHello,
    /// A restarted worker does not read the ends that the process before recorded.
    RecordForgotten,
    /// A restarted worker starts anew what it finds running.
    AdoptRestarts,
    /// A restarted worker does not know that the process before it stopped an attempt.
    StopForgotten,
    /// A hello of a process that is gone counts as the latest, whenever it comes.
    DeadHello,
    /// A task that its workers or its machines have lost too often is tried again all the same.
    BudgetIgnored,
    /// The same turn gives another order of events each time.
    Chance,
}

impl Plant {
    /// Every planted bug.
    pub const ALL: [Self; 23] = [
        Self::EffectsBeforeCommit,
        Self::NoFence,
        Self::LostWakeUp,
        Self::HealthKept,
        Self::LeaseIgnored,
        Self::LeaseFromAnswer,
        Self::ForgetBeforeCommit,
        Self::DoubleStart,
        Self::Oversell,
        Self::LostCommit,
        Self::FullIgnored,
        Self::RequestForgotten,
        Self::CancelDropped,
        Self::RoomTooSoon,
        Self::CancelTooMany,
        Self::CancelRefused,
        Self::LateHello,
        Self::RecordForgotten,
        Self::AdoptRestarts,
        Self::StopForgotten,
        Self::DeadHello,
        Self::BudgetIgnored,
        Self::Chance,
    ];

    /// Its name at the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EffectsBeforeCommit => "effects-before-commit",
            Self::NoFence => "no-fence",
            Self::LostWakeUp => "lost-wake-up",
            Self::HealthKept => "health-kept",
            Self::LeaseIgnored => "lease-ignored",
            Self::LeaseFromAnswer => "lease-from-answer",
            Self::ForgetBeforeCommit => "forget-before-commit",
            Self::DoubleStart => "double-start",
            Self::Oversell => "oversell",
            Self::LostCommit => "lost-commit",
            Self::FullIgnored => "full-ignored",
            Self::RequestForgotten => "request-forgotten",
            Self::CancelDropped => "cancel-dropped",
            Self::RoomTooSoon => "room-too-soon",
            Self::CancelTooMany => "cancel-too-many",
            Self::CancelRefused => "cancel-refused",
            Self::LateHello => "late-hello",
            Self::RecordForgotten => "record-forgotten",
            Self::AdoptRestarts => "adopt-restarts",
            Self::StopForgotten => "stop-forgotten",
            Self::DeadHello => "dead-hello",
            Self::BudgetIgnored => "budget-ignored",
            Self::Chance => "chance",
        }
    }

    /// The planted bug with this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|plant| plant.name() == name)
    }
}
