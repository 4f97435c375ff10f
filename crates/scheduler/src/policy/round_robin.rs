//! Each task on the next worker that has room, over all plans.

use super::{Policy, room::Room};
use crate::{Plan, Problem, Share};

/// See the module.
#[derive(Debug, Default)]
pub struct RoundRobin {
    /// How many tasks were placed so far: where the round goes on.
    turn: usize,
}

impl Policy for RoundRobin {
    fn name(&self) -> &'static str {
        "round_robin"
    }

    fn plan(&mut self, problem: &Problem) -> Plan {
        let mut room = Room::new(&problem.offers);
        let mut plan = Plan::default();
        let workers = room.offers.len();
        for (index, demand) in problem.demands.iter().enumerate() {
            // A worker that refused the shape once has no room for it in the rest of this plan.
            let mut refused = 0;
            let mut left = demand.count;
            while left > 0 && refused < workers {
                let offer = self.turn % workers;
                self.turn = (offer + 1) % workers;
                if room.fits(&demand.shape, offer) == 0 {
                    refused += 1;
                    continue;
                }
                refused = 0;
                room.take(demand.shape.needs, offer, 1);
                plan.shares.push(Share { demand: index, offer, count: 1 });
                left -= 1;
            }
        }
        plan
    }
}
