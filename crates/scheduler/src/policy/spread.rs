//! Each task on the worker that stays the emptiest, so that one lost worker takes little with it.

use cloudai_model::Resources;

use super::{Policy, room::Room};
use crate::{Offer, Plan, Problem, Share};

/// See the module.
#[derive(Debug, Default)]
pub struct Spread;

impl Policy for Spread {
    fn name(&self) -> &'static str {
        "spread"
    }

    fn plan(&mut self, problem: &Problem) -> Plan {
        let mut room = Room::new(&problem.offers);
        let mut plan = Plan::default();
        for (index, demand) in problem.demands.iter().enumerate() {
            for _ in 0..demand.count {
                let needs = demand.shape.needs;
                let best = (0..room.offers.len())
                    .filter(|offer| room.fits(&demand.shape, *offer) > 0)
                    .min_by_key(|offer| (fullness_after(&room.offers[*offer], needs), *offer));
                let Some(offer) = best else { break };
                room.take(needs, offer, 1);
                plan.shares.push(Share { demand: index, offer, count: 1 });
            }
        }
        plan
    }
}

/// How full the fullest of the worker's resources would be, in millionths.
fn fullness_after(offer: &Offer, needs: Resources) -> u64 {
    let left = offer.free.saturating_sub(needs);
    offer
        .capacity
        .parts()
        .into_iter()
        .zip(left.parts())
        .filter(|((_, capacity), _)| *capacity > 0)
        .map(|((_, capacity), (_, left))| {
            let used = u128::from(capacity - left.min(capacity));
            u64::try_from(used * 1_000_000 / u128::from(capacity)).unwrap_or(u64::MAX)
        })
        .max()
        .unwrap_or(0)
}
