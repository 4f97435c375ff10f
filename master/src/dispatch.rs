//! Orders on their way to workers. Owned by the heart; sending never waits.
//!
//! An order may be lost here: when a worker is not connected, or so slow that its link is full. Its
//! next full report makes the core give it again.

mod unary;

use std::collections::HashMap;

use cloudai_failpoint::{ENABLED, failpoint};
use cloudai_master_core::Order;
use cloudai_model::{Session, WorkerId, WorkerKind};
use cloudai_proto::convert::Orders;
use tokio::sync::mpsc;

pub(crate) use unary::UnaryCaller;

/// Most batches of orders that wait for one worker.
pub(crate) const LINK_LEN_MAX: usize = 1_024;

/// Where the orders of one worker go: a session's stream, or the caller of a unary worker.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) worker: WorkerId,
    pub(crate) kind: WorkerKind,
    pub(crate) orders: mpsc::Sender<Orders>,
}

/// The open links by worker.
#[derive(Debug, Default)]
pub(crate) struct Dispatch {
    links: HashMap<WorkerId, (Session, Link)>,
}

impl Dispatch {
    /// From now on the worker is reached over this link; an older one is closed by being dropped.
    pub(crate) fn connect(&mut self, session: Session, link: Link) {
        self.links.insert(link.worker.clone(), (session, link));
    }

    /// As [`Dispatch::connect`], but a link that stands already is the better one.
    pub(crate) fn attach(&mut self, session: Session, link: Link) {
        self.links.entry(link.worker.clone()).or_insert((session, link));
    }

    /// Closes every session, so that its worker says hello again. A unary worker would not: its
    /// heartbeats are enough for it.
    pub(crate) fn disconnect_sessions(&mut self) {
        self.links.retain(|_, (_, link)| link.kind == WorkerKind::Unary);
    }

    /// Gives each worker the orders of one turn as one batch.
    pub(crate) fn send(&mut self, orders: Vec<(WorkerId, Session, Order)>) {
        let mut batches: HashMap<WorkerId, Orders> = HashMap::new();
        for (worker, session, order) in orders {
            let Some((linked, _)) = self.links.get(&worker) else { continue };
            if *linked != session {
                continue;
            }
            let batch = match batches.get_mut(&worker) {
                Some(batch) => batch,
                None => batches.entry(worker).or_default(),
            };
            match order {
                Order::Assign { attempt, spec } => batch.assign.push((attempt, spec)),
                Order::Stop { attempt, reason } => batch.stop.push((attempt, reason)),
                Order::Forget { attempt } => batch.forget.push(attempt),
                Order::Acknowledge { sequence } => {
                    batch.acknowledged = batch.acknowledged.max(sequence);
                }
            }
        }
        for (worker, batch) in batches {
            let Some((_, link)) = self.links.get(&worker) else { continue };
            let points = Points::of(&batch);
            points.before_send();
            match link.orders.try_send(batch) {
                Ok(()) => points.after_send(),
                Err(mpsc::error::TrySendError::Full(_)) => {
                    tracing::warn!("worker {worker} reads its orders too slowly; some wait");
                }
                Err(mpsc::error::TrySendError::Closed(_)) => drop(self.links.remove(&worker)),
            }
        }
    }
}

/// Where a test may kill this master around a batch of orders. Nothing in a build that is shipped.
#[derive(Clone, Copy)]
struct Points {
    assign: bool,
    stop: bool,
    forget: bool,
}

impl Points {
    fn of(batch: &Orders) -> Self {
        let has = |is_empty: bool| ENABLED && !is_empty;
        Self {
            assign: has(batch.assign.is_empty()),
            stop: has(batch.stop.is_empty()),
            forget: has(batch.forget.is_empty()),
        }
    }

    fn before_send(self) {
        if self.assign {
            failpoint!("master.assign.before_send");
        }
        if self.stop {
            failpoint!("master.stop.before_send");
        }
        if self.forget {
            failpoint!("master.forget.before_send");
        }
    }

    fn after_send(self) {
        if self.assign {
            failpoint!("master.assign.after_send");
        }
        if self.stop {
            failpoint!("master.stop.after_send");
        }
        if self.forget {
            failpoint!("master.forget.after_send");
        }
    }
}
