//! Everything that can go wrong, as data: a run's faults are a list that can be printed, counted
//! and made shorter.

use std::fmt;

/// One thing that goes wrong, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The true time, in milliseconds.
    pub(crate) at_ms: u64,
    /// What happens.
    pub(crate) what: FaultWhat,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultWhat {
    /// The master is killed, and started again later.
    MasterDies {
        /// At which point of a turn.
        point: DeathPoint,
        /// How long it stays away.
        down_ms: u64,
    },
    /// The master stands still, as after SIGSTOP.
    MasterPauses {
        /// For how long.
        ms: u64,
    },
    /// A commit fails.
    StoreFails {
        /// Whether the events were stored all the same: the answer alone is lost.
        is_stored: bool,
    },
    /// The store has no room.
    StoreFull {
        /// For how long.
        ms: u64,
    },
    /// A worker process is killed; its containers go on.
    WorkerDies {
        /// Which.
        worker: usize,
        /// At which point of an attempt's way.
        point: WorkerPoint,
        /// How long it stays away.
        down_ms: u64,
    },
    /// A worker process stands still; its containers go on.
    WorkerPauses {
        /// Which.
        worker: usize,
        /// For how long.
        ms: u64,
    },
    /// A worker process ends in good order.
    WorkerLeaves {
        /// Which.
        worker: usize,
        /// How long it stays away.
        down_ms: u64,
    },
    /// Nothing passes between the master and a worker.
    Cut {
        /// Which worker.
        worker: usize,
        /// In which direction.
        way: Way,
        /// For how long.
        ms: u64,
    },
    /// A worker's connection is reset; what is under way arrives in part.
    StreamBreaks {
        /// Which worker.
        worker: usize,
    },
    /// A worker's engine answers nothing; its containers go on.
    EngineHangs {
        /// Which worker.
        worker: usize,
        /// For how long.
        ms: u64,
    },
    /// Somebody removes a container.
    EngineLoses {
        /// On which worker.
        worker: usize,
    },
    /// A wall clock jumps.
    WallJumps {
        /// Of which worker; `None` is the master.
        worker: Option<usize>,
        /// How far, in milliseconds.
        by_ms: i64,
    },
}

/// Where in a turn a master dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeathPoint {
    /// At any moment.
    AtOnce,
    /// When the turn is decided and nothing is stored.
    BeforeCommit,
    /// When the turn is stored and nothing has left.
    AfterCommit,
    /// When this share of the effects, in percent, has left.
    MidRelease(u8),
}

/// Where on an attempt's way its worker dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkerPoint {
    /// At any moment.
    AtOnce,
    /// The ledger has it, the disk does not.
    BeforeRecord,
    /// The disk has it, and the engine was not asked for anything.
    Accepted,
    /// Its container is made, and the disk does not say so.
    Created,
    /// The disk says so, and it was not started.
    Marked,
    /// Its container runs, and nobody was told.
    Started,
    /// It was asked to stop.
    Signalled,
    /// It is over, and the disk does not say so.
    BeforeEnd,
    /// The disk says so, and the container is there.
    Ended,
    /// The container is gone, and the ledger was not told.
    Removed,
    /// The master wants it no more, and the disk still has it.
    Dropped,
}

impl WorkerPoint {
    /// Every point that is not any moment.
    pub(crate) const BETWEEN_STEPS: [Self; 10] = [
        Self::BeforeRecord,
        Self::Accepted,
        Self::Created,
        Self::Marked,
        Self::Started,
        Self::Signalled,
        Self::BeforeEnd,
        Self::Ended,
        Self::Removed,
        Self::Dropped,
    ];
}

/// A direction of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the worker to the master.
    Up,
    /// From the master to the worker.
    Down,
    /// Both.
    Both,
}

impl Way {
    pub(crate) const fn is_up(self) -> bool {
        matches!(self, Self::Up | Self::Both)
    }

    pub(crate) const fn is_down(self) -> bool {
        matches!(self, Self::Down | Self::Both)
    }
}

impl FaultWhat {
    /// The class that a seed switches on or off as a whole, and under which it is counted.
    pub(crate) const fn class(self) -> Class {
        match self {
            Self::MasterDies { point: DeathPoint::AtOnce, .. } => Class::MasterDies,
            Self::MasterDies { point: DeathPoint::BeforeCommit, .. } => {
                Class::MasterDiesBeforeCommit
            }
            Self::MasterDies { point: DeathPoint::AfterCommit, .. } => Class::MasterDiesAfterCommit,
            Self::MasterDies { point: DeathPoint::MidRelease(_), .. } => {
                Class::MasterDiesAmidEffects
            }
            Self::MasterPauses { .. } => Class::MasterPauses,
            Self::StoreFails { .. } => Class::StoreFails,
            Self::StoreFull { .. } => Class::StoreFull,
            Self::WorkerDies { point: WorkerPoint::AtOnce, .. } => Class::WorkerDies,
            Self::WorkerDies { .. } => Class::WorkerDiesBetweenSteps,
            Self::WorkerPauses { .. } => Class::WorkerPauses,
            Self::WorkerLeaves { .. } => Class::WorkerLeaves,
            Self::Cut { way: Way::Both, .. } => Class::CutBothWays,
            Self::Cut { .. } => Class::CutOneWay,
            Self::StreamBreaks { .. } => Class::StreamBreaks,
            Self::EngineHangs { .. } => Class::EngineHangs,
            Self::EngineLoses { .. } => Class::EngineLoses,
            Self::WallJumps { .. } => Class::WallJumps,
        }
    }
}

impl FaultWhat {
    /// The machine that it happens to.
    pub(crate) const fn worker(self) -> Option<usize> {
        match self {
            Self::WorkerDies { worker, .. }
            | Self::WorkerPauses { worker, .. }
            | Self::WorkerLeaves { worker, .. }
            | Self::Cut { worker, .. }
            | Self::StreamBreaks { worker }
            | Self::EngineHangs { worker, .. }
            | Self::EngineLoses { worker } => Some(worker),
            Self::WallJumps { worker, .. } => worker,
            Self::MasterDies { .. }
            | Self::MasterPauses { .. }
            | Self::StoreFails { .. }
            | Self::StoreFull { .. } => None,
        }
    }
}

macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Class { $($(#[$doc])* $name,)* }

        impl Class {
            /// Every class.
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];
        }

        impl fmt::Display for Class {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$name => $text,)* })
            }
        }
    };
}

classes! {
    MasterDies = "master killed between turns",
    MasterDiesBeforeCommit = "master killed before a commit",
    MasterDiesAfterCommit = "master killed after a commit",
    MasterDiesAmidEffects = "master killed amid the effects",
    MasterPauses = "master paused",
    StoreFails = "commit failed",
    StoreFull = "store full",
    SlowDisk = "commit slow",
    WorkerDies = "worker killed",
    WorkerDiesBetweenSteps = "worker killed between steps",
    WorkerPauses = "worker paused",
    WorkerLeaves = "worker left",
    CutBothWays = "network cut both ways",
    CutOneWay = "network cut one way",
    StreamBreaks = "connection reset",
    HelloLate = "hello given up, and late",
    CallLost = "call or answer lost",
    CallDoubled = "call doubled",
    EffectDoubled = "order or end doubled",
    EngineHangs = "engine hung",
    EngineLoses = "container removed by hand",
    EngineFails = "engine refused",
    ClockDrift = "clock drifting",
    WallJumps = "wall clock jumped",
}
