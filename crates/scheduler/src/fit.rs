//! Why a shape does not fit a worker: every "no" can explain itself in words.

use cloudai_model::{Lack, WorkerId};
use thiserror::Error;

use crate::{Offer, Shape, Standing};

/// The first reason for which a worker cannot take a task of a shape now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Refusal {
    /// The task names another worker.
    #[error("the task asks for {0}")]
    NotTarget(WorkerId),
    /// It was not heard lately.
    #[error("inactive")]
    Inactive,
    /// It does not have a volume.
    #[error("has no volume '{0}'")]
    NoVolume(String),
    /// It would not fit even if nothing ran there.
    #[error("{0} in all: it can never run there")]
    TooSmall(LackOfAll),
    /// It says of itself that something it needs fails.
    #[error("degraded: {0}")]
    Degraded(String),
    /// What it was given failed too often in a row.
    #[error("put aside {0}")]
    PutAside(String),
    /// It does not fit beside what runs there.
    #[error("{0}")]
    Busy(Lack),
    /// It holds as many attempts as a worker may.
    #[error("holds as many attempts as a worker may")]
    Full,
}

/// A lack measured against all that a worker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LackOfAll(pub Lack);

impl std::fmt::Display for LackOfAll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.0.to_string();
        f.write_str(text.strip_suffix(" free").unwrap_or(&text))
    }
}

/// Why `offer` cannot take one task of `shape` now; `None` when it can.
pub fn refusal_of(shape: &Shape, offer: &Offer) -> Option<Refusal> {
    if let Some(target) = &shape.target
        && *target != offer.worker
    {
        return Some(Refusal::NotTarget(target.clone()));
    }
    if offer.standing == Standing::Inactive {
        return Some(Refusal::Inactive);
    }
    if let Some(missing) = shape.volumes.difference(&offer.volumes).next() {
        return Some(Refusal::NoVolume(missing.clone()));
    }
    if let Some(lack) = shape.needs.find_lack(offer.capacity) {
        return Some(Refusal::TooSmall(LackOfAll(lack)));
    }
    match &offer.standing {
        Standing::Degraded(why) => return Some(Refusal::Degraded(why.clone())),
        Standing::PutAside(why) => return Some(Refusal::PutAside(why.clone())),
        Standing::Active | Standing::Inactive => {}
    }
    if let Some(lack) = shape.needs.find_lack(offer.free) {
        return Some(Refusal::Busy(lack));
    }
    (offer.slots == 0).then_some(Refusal::Full)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use cloudai_model::Resources;

    use super::*;

    fn offer() -> Offer {
        let capacity = Resources { cpu_milli: 4000, memory_bytes: 8 << 30, ..Resources::default() };
        Offer {
            worker: WorkerId::new("worker-2").unwrap(),
            standing: Standing::Active,
            capacity,
            free: Resources { cpu_milli: 1500, ..capacity },
            slots: 1,
            volumes: Arc::new(BTreeSet::from(["data".to_owned()])),
        }
    }

    fn check(change: impl FnOnce(&mut Shape, &mut Offer), want: &str) {
        let needs = Resources { cpu_milli: 1000, memory_bytes: 1 << 30, ..Resources::default() };
        let mut shape = Shape { needs, target: None, volumes: BTreeSet::new() };
        let mut offer = offer();
        change(&mut shape, &mut offer);
        let got =
            refusal_of(&shape, &offer).map_or("fits".to_owned(), |refusal| refusal.to_string());
        assert_eq!(got, want);
    }

    #[test]
    fn each_refusal_says_why_in_words() {
        check(|_, _| {}, "fits");
        check(|shape, _| shape.needs.cpu_milli = 4000, "wants 4 cores, 1.5 free");
        check(
            |shape, _| shape.needs.cpu_milli = 5000,
            "wants 5 cores, 4 in all: it can never run there",
        );
        check(
            |shape, _| shape.needs.gpu_milli = 1000,
            "wants 1 GPUs, 0 in all: it can never run there",
        );
        check(|_, offer| offer.standing = Standing::Inactive, "inactive");
        let degraded = || Standing::Degraded("the disk is full".to_owned());
        check(|_, offer| offer.standing = degraded(), "degraded: the disk is full");
        let aside = || {
            Standing::PutAside(
                "for 24 s more, then tried with one task, after 5 failures in a row".to_owned(),
            )
        };
        check(
            |_, offer| offer.standing = aside(),
            "put aside for 24 s more, then tried with one task, after 5 failures in a row",
        );
        check(
            |shape, offer| {
                (shape.needs.cpu_milli, offer.standing) = (5000, degraded());
            },
            "wants 5 cores, 4 in all: it can never run there",
        );
        check(|_, offer| offer.slots = 0, "holds as many attempts as a worker may");
        check(|shape, _| shape.volumes.extend(["data".to_owned()]), "fits");
        check(|shape, _| shape.volumes.extend(["models".to_owned()]), "has no volume 'models'");
        check(
            |shape, _| shape.target = WorkerId::new("worker-1").ok(),
            "the task asks for worker-1",
        );
        check(|shape, _| shape.target = WorkerId::new("worker-2").ok(), "fits");
    }
}
