//! Bugs that are planted on purpose, in the simulator's own shell and never in the cores: a judge
//! that never found one proves nothing. Each stands for a defect that a real shell could have.

use crate::faults::{Fault, FaultWhat, Way, WorkerPoint};
use crate::scenario::{CancelPlan, Scenario};

const ACKNOWLEDGED_CANCEL: &str = "an acknowledged cancel is stored";
const ACKNOWLEDGED_SUBMIT: &str = "an acknowledged submit exists";
const EVERYTHING_ENDS: &str = "when the world has healed everything ends";
const FITS: &str = "what runs on a machine fits into it";
const FORGOTTEN_STORED: &str = "an end is forgotten only when it is stored";
const HAS_A_REASON: &str = "every waiting task has a reason";
const LEASE_COVERS: &str = "a worker stops what its lease does not cover";
const LIVE_STATE: &str = "the store gives back the live state";
const ONE_LEASE: &str = "at most one attempt of a task holds a valid lease";
const OUTCOME: &str = "the recorded outcome is the one that the current attempt produced";
const TRUE_REASON: &str = "the reason why a task waits is true";

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

    /// The invariants that it may break: another one that breaks is another bug.
    pub const fn invariants(self) -> &'static [&'static str] {
        match self {
            Self::EffectsBeforeCommit => &[
                ACKNOWLEDGED_SUBMIT,
                ACKNOWLEDGED_CANCEL,
                FORGOTTEN_STORED,
                "durable before visible",
            ],
            Self::NoFence => &[OUTCOME, FITS],
            Self::LostWakeUp => &["a task that a worker has room for is placed"],
            Self::HealthKept => &[TRUE_REASON],
            Self::LeaseIgnored | Self::LeaseFromAnswer => &[LEASE_COVERS, ONE_LEASE],
            Self::ForgetBeforeCommit => &[FORGOTTEN_STORED],
            Self::DoubleStart | Self::AdoptRestarts => &["no attempt is started twice"],
            Self::Oversell => &["a worker is registered with what it has"],
            Self::LostCommit => &[LIVE_STATE],
            // A store of files is not looked at after every commit.
            Self::FullIgnored => &[LIVE_STATE, HAS_A_REASON, TRUE_REASON],
            Self::RequestForgotten => {
                &["one request id is one job", "what is stored exists for ever", EVERYTHING_ENDS]
            }
            Self::CancelDropped => &[ACKNOWLEDGED_CANCEL],
            Self::RoomTooSoon => &[FITS],
            Self::CancelTooMany => &["only what a client does not want is cancelled"],
            Self::CancelRefused => &["a cancel of what has not ended is taken"],
            Self::LateHello | Self::DeadHello => &[ONE_LEASE],
            Self::RecordForgotten => &["a restarted worker takes up what it recorded"],
            Self::StopForgotten => &[OUTCOME],
            Self::BudgetIgnored => &["a budget that is used up ends its task"],
            Self::Chance => &["the same seed gives the same history"],
        }
    }

    /// Makes what the bug needs happen more often, whether it is planted or not.
    pub(crate) fn favour(self, scenario: &mut Scenario) {
        let down_ms = 3_000;
        match self {
            // A worker that stops what runs dies of it.
            Self::StopForgotten => {
                let point = WorkerPoint::Signalled;
                add_faults(scenario, |worker| FaultWhat::WorkerDies { worker, point, down_ms });
                add_faults(scenario, |worker| FaultWhat::WorkerLeaves { worker, down_ms });
            }
            // Answers are long under way, and then there are none.
            Self::LeaseFromAnswer => {
                scenario.rates.delay_ms_max = 2_000;
                scenario.rates.commit_ms_max = 4_000;
                let (way, ms) = (Way::Both, 70_000);
                add_faults(scenario, |worker| FaultWhat::Cut { worker, way, ms });
            }
            Self::RoomTooSoon => {
                for job in scenario.jobs.iter_mut().step_by(2) {
                    job.cancel = Some(CancelPlan { after_ms: 3_000, position: None });
                }
            }
            Self::BudgetIgnored => scenario.rates.engine_fail_percent = 80,
            _ => {}
        }
    }
}

/// Adds one for each machine, again and again.
fn add_faults(scenario: &mut Scenario, what: impl Fn(usize) -> FaultWhat) {
    for at_ms in (10_000..scenario.heal_at_ms).step_by(20_000).take(12) {
        let workers = 0..scenario.workers.len();
        scenario.faults.extend(workers.map(|worker| Fault { at_ms, what: what(worker) }));
    }
    scenario.faults.sort_by_key(|fault| fault.at_ms);
}
