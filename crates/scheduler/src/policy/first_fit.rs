//! Fills one worker before it opens the next: large tasks find whole workers free.

use super::{Policy, room::Room};
use crate::{Plan, Problem, Share};

/// See the module.
#[derive(Debug, Default)]
pub struct FirstFit;

impl Policy for FirstFit {
    fn name(&self) -> &'static str {
        "first_fit"
    }

    fn plan(&mut self, problem: &Problem) -> Plan {
        let mut room = Room::new(&problem.offers);
        let mut plan = Plan::default();
        for (index, demand) in problem.demands.iter().enumerate() {
            let mut left = demand.count;
            for offer in 0..room.offers.len() {
                if left == 0 {
                    break;
                }
                let count = room.fits(&demand.shape, offer).min(left);
                if count > 0 {
                    room.take(demand.shape.needs, offer, count);
                    plan.shares.push(Share { demand: index, offer, count });
                    left -= count;
                }
            }
        }
        plan
    }
}
