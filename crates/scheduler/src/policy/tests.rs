//! Placement tests that read like a picture: workers as `name free/all`, demands as `count×cores`,
//! the plan as `worker: cores cores …`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use cloudai_model::{Resources, WorkerId};

use super::*;
use crate::{Demand, Offer, Problem, Shape, Standing, refusal_of};

fn cores(cpu_milli: u64) -> Resources {
    Resources { cpu_milli: cpu_milli * 1000, ..Resources::default() }
}

fn worker(name: &str, free: u64, all: u64) -> Offer {
    Offer {
        worker: WorkerId::new(name).unwrap(),
        standing: Standing::Active,
        capacity: cores(all),
        free: cores(free),
        slots: 100,
        volumes: Arc::default(),
    }
}

fn demand(count: u64, each: u64, target: Option<&str>) -> Demand {
    let target = target.map(|name| WorkerId::new(name).unwrap());
    let shape = Shape { needs: cores(each), target, volumes: BTreeSet::new() };
    Demand { shape: Arc::new(shape), count }
}

fn picture(kind: PolicyKind, problem: &Problem) -> String {
    let plan = kind.build().plan(problem);
    let mut text = String::new();
    for (index, offer) in problem.offers.iter().enumerate() {
        write!(text, "{}:", offer.worker).unwrap();
        for share in plan.shares.iter().filter(|share| share.offer == index) {
            let each = problem.demands[share.demand].shape.needs.cpu_milli / 1000;
            for _ in 0..share.count {
                write!(text, " {each}").unwrap();
            }
        }
        text.push('\n');
    }
    text
}

fn check(kind: PolicyKind, offers: Vec<Offer>, demands: Vec<Demand>, want: &str) {
    assert_eq!(picture(kind, &Problem { offers, demands }), want);
}

#[test]
fn first_fit_fills_one_worker_before_the_next() {
    check(
        PolicyKind::FirstFit,
        vec![worker("a", 4, 4), worker("b", 4, 4)],
        vec![demand(5, 1, None), demand(1, 2, None)],
        "a: 1 1 1 1\nb: 1 2\n",
    );
}

#[test]
fn round_robin_takes_turns() {
    check(
        PolicyKind::RoundRobin,
        vec![worker("a", 4, 4), worker("b", 1, 4), worker("c", 4, 4)],
        vec![demand(5, 1, None)],
        "a: 1 1\nb: 1\nc: 1 1\n",
    );
}

#[test]
fn round_robin_goes_on_where_the_last_plan_ended() {
    let offers = vec![worker("a", 4, 4), worker("b", 4, 4)];
    let problem = Problem { offers, demands: vec![demand(1, 1, None)] };
    let mut policy = RoundRobin::default();
    let first = policy.plan(&problem).shares[0].offer;
    let second = policy.plan(&problem).shares[0].offer;
    assert_eq!((first, second), (0, 1));
}

#[test]
fn spread_keeps_every_worker_as_empty_as_can_be() {
    check(
        PolicyKind::Spread,
        vec![worker("a", 4, 4), worker("b", 8, 8)],
        vec![demand(3, 2, None)],
        "a: 2\nb: 2 2\n",
    );
}

#[test]
fn a_shape_that_fits_nowhere_never_blocks_one_that_does() {
    for kind in PolicyKind::ALL {
        let mut demands: Vec<_> = (0..50).map(|extra| demand(100, 9 + extra, None)).collect();
        demands.push(demand(1, 1, None));
        check(kind, vec![worker("a", 4, 4)], demands, "a: 1\n");
    }
}

#[test]
fn a_target_is_the_only_place() {
    for kind in PolicyKind::ALL {
        check(
            kind,
            vec![worker("a", 4, 4), worker("b", 2, 4)],
            vec![demand(3, 1, Some("b"))],
            "a:\nb: 1 1\n",
        );
    }
}

#[test]
fn no_policy_sells_more_than_there_is() {
    for kind in PolicyKind::ALL {
        let mut offers = vec![worker("a", 3, 4), worker("b", 7, 8), worker("c", 5, 5)];
        offers[2].slots = 2;
        let demands = vec![demand(2, 3, None), demand(9, 2, None), demand(9, 1, None)];
        let problem = Problem { offers: offers.clone(), demands };
        for share in kind.build().plan(&problem).shares {
            let shape = &problem.demands[share.demand].shape;
            let offer = &mut offers[share.offer];
            for _ in 0..share.count {
                assert_eq!(refusal_of(shape, offer), None, "{kind:?}");
                offer.free = offer.free.checked_sub(shape.needs).unwrap();
                offer.slots -= 1;
            }
        }
        let idle: u64 = offers[..2].iter().map(|offer| offer.free.cpu_milli).sum();
        assert_eq!(idle, 0, "{kind:?} left room that tasks were waiting for");
    }
}

#[test]
fn no_workers_and_no_work_are_no_plan() {
    for kind in PolicyKind::ALL {
        check(kind, vec![], vec![demand(1, 1, None)], "");
        check(kind, vec![worker("a", 1, 1)], vec![], "a:\n");
        assert_eq!(PolicyKind::find(kind.name()), Some(kind));
        assert_eq!(kind.build().name(), kind.name());
    }
}
