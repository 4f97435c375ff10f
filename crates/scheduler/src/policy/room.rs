//! What is left of each offer while a plan is being made.

use cloudai_model::Resources;

use crate::{Offer, Shape, refusal_of};

/// The offers of a problem, shrinking as shares are taken from them.
pub(super) struct Room {
    pub(super) offers: Vec<Offer>,
}

impl Room {
    pub(super) fn new(offers: &[Offer]) -> Self {
        Self { offers: offers.to_vec() }
    }

    /// How many tasks of the shape still fit there; 0 when the worker refuses it.
    pub(super) fn fits(&self, shape: &Shape, offer: usize) -> u64 {
        let offer = &self.offers[offer];
        if refusal_of(shape, offer).is_some() {
            return 0;
        }
        shape.needs.times_in(offer.free).min(offer.slots)
    }

    /// Takes `count` tasks' worth; the caller asked [`Room::fits`] first.
    pub(super) fn take(&mut self, needs: Resources, offer: usize, count: u64) {
        let offer = &mut self.offers[offer];
        let taken = needs.checked_mul(count).and_then(|all| offer.free.checked_sub(all));
        offer.free = taken.expect("fits() bounded the count by what is free");
        offer.slots -= count;
    }
}
