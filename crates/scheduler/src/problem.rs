//! The question and the answer of a policy.

use std::collections::BTreeSet;
use std::sync::Arc;

use cloudai_model::{Resources, TaskSpec, WorkerId};

/// All of a task that decides where it can run. Tasks with equal shapes are interchangeable to a
/// policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// What it takes from its worker.
    pub needs: Resources,
    /// The only worker that may run it.
    pub target: Option<WorkerId>,
    /// Volumes that its worker must have.
    pub volumes: BTreeSet<String>,
}

impl Shape {
    /// The shape of a spec.
    pub fn of(spec: &TaskSpec) -> Self {
        Self {
            needs: spec.needs,
            target: spec.target.clone(),
            volumes: spec.mounts.iter().map(|mount| mount.volume.clone()).collect(),
        }
    }
}

/// Whether a worker takes new work; if not, why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It does.
    Active,
    /// It was not heard lately.
    Inactive,
    /// It says of itself that something it needs fails, in these words.
    Degraded(String),
    /// What it was given failed too often in a row: for how long it gets nothing, and why.
    PutAside(String),
}

/// A worker as a policy sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Which worker.
    pub worker: WorkerId,
    /// Whether it takes work at all.
    pub standing: Standing,
    /// All that it has.
    pub capacity: Resources,
    /// What no attempt holds.
    pub free: Resources,
    /// How many more attempts it may hold.
    pub slots: u64,
    /// Volumes that its administrator declared.
    pub volumes: Arc<BTreeSet<String>>,
}

/// Waiting tasks of one shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// Their shape.
    pub shape: Arc<Shape>,
    /// How many may be placed now; at least 1.
    pub count: u64,
}

/// What is to be placed, and where there is room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problem {
    /// Every worker, ordered by id.
    pub offers: Vec<Offer>,
    /// Every waiting shape, the one with the oldest task first.
    pub demands: Vec<Demand>,
}

/// `count` tasks of one demand go to one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Index into [`Problem::demands`].
    pub demand: usize,
    /// Index into [`Problem::offers`].
    pub offer: usize,
    /// How many tasks.
    pub count: u64,
}

/// What a policy proposes, in the order in which it is to be placed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Each share.
    pub shares: Vec<Share>,
}
