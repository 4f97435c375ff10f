//! Who plans now: an external agent, or the built-in policy.
//!
//! An agent that calls is given the word for as long as its deadline. Useful proposals renew it;
//! looking does not, so that one which only watches, or answers late or wrong, keeps nothing
//! waiting. After a missed deadline the policy plans for a while before an agent is waited for
//! again.

use cloudai_model::Monotonic;

/// For how many deadlines an agent that was late is not waited for.
const PENALTY_DEADLINES: u64 = 6;

/// After how many deadlines of use in a row the policy plans once all the same: an agent that
/// places only what it likes must not keep the rest waiting for ever.
const USE_DEADLINES_MAX: u64 = 20;

/// Decides whether planning is left to the agent.
#[derive(Debug)]
pub(super) struct AgentGate {
    /// How long an agent is waited for, in milliseconds; `None`: not at all.
    deadline_ms: Option<u64>,
    stand: Stand,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// No agent is waited for.
    Away,
    /// The agent plans, and has done so since it began.
    Plans { until: Monotonic, began: Monotonic },
    /// It was late; until this moment it is not waited for unless it proposes something useful.
    Late(Monotonic),
}

impl AgentGate {
    pub(super) const fn new(deadline_ms: Option<u64>) -> Self {
        Self { deadline_ms, stand: Stand::Away }
    }

    /// The agent asked what waits.
    pub(super) fn looked(&mut self, now: Monotonic, anything_waits: bool) {
        let Some(ms) = self.deadline_ms else { return };
        match self.stand {
            Stand::Late(until) if now < until => {}
            // While nothing waits there is nothing to be late with.
            Stand::Plans { .. } if anything_waits => {}
            _ => self.stand = Stand::Plans { until: now.plus_ms(ms), began: now },
        }
    }

    /// The agent proposed something that was taken.
    pub(super) fn was_useful(&mut self, now: Monotonic) {
        let Some(ms) = self.deadline_ms else { return };
        let began = match self.stand {
            Stand::Plans { began, .. } => began,
            Stand::Away | Stand::Late(_) => now,
        };
        let until = now.plus_ms(ms).min(Self::last_word(began, ms));
        self.stand = Stand::Plans { until, began };
    }

    /// Whether the built-in policy plans now.
    pub(super) fn policy_plans(&mut self, now: Monotonic) -> bool {
        let Stand::Plans { until, began } = self.stand else { return true };
        if now < until {
            return false;
        }
        let ms = self.deadline_ms.unwrap_or(0);
        self.stand = if until == Self::last_word(began, ms) {
            Stand::Away
        } else {
            Stand::Late(now.plus_ms(ms.saturating_mul(PENALTY_DEADLINES)))
        };
        true
    }

    const fn last_word(began: Monotonic, deadline_ms: u64) -> Monotonic {
        began.plus_ms(deadline_ms.saturating_mul(USE_DEADLINES_MAX))
    }

    /// When the policy takes over, if the agent says nothing until then.
    pub(super) const fn next_deadline(&self) -> Option<Monotonic> {
        match self.stand {
            Stand::Plans { until, .. } => Some(until),
            Stand::Away | Stand::Late(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE_MS: u64 = 10;

    fn at(ms: u64) -> Monotonic {
        Monotonic(ms)
    }

    #[test]
    fn an_agent_that_only_looks_keeps_nothing_waiting() {
        let mut gate = AgentGate::new(Some(DEADLINE_MS));
        assert!(gate.policy_plans(at(0)));
        for ms in 0..DEADLINE_MS {
            gate.looked(at(ms), true);
            assert!(!gate.policy_plans(at(ms)), "{ms}");
        }
        gate.looked(at(DEADLINE_MS), true);
        assert!(gate.policy_plans(at(DEADLINE_MS)));
        gate.looked(at(DEADLINE_MS + 1), true);
        assert!(gate.policy_plans(at(DEADLINE_MS + 1)), "a late agent is not waited for again");
        gate.looked(at(100), true);
        assert!(!gate.policy_plans(at(100)), "until its penalty is over");
    }

    #[test]
    fn a_useful_agent_keeps_the_word() {
        let mut gate = AgentGate::new(Some(DEADLINE_MS));
        for turn in 1..20 {
            let now = at(turn * (DEADLINE_MS - 1));
            gate.was_useful(now);
            assert!(!gate.policy_plans(now));
        }
        assert_eq!(gate.next_deadline(), Some(at(19 * (DEADLINE_MS - 1) + DEADLINE_MS)));
    }

    #[test]
    fn an_agent_that_places_only_what_it_likes_does_not_starve_the_rest() {
        let mut gate = AgentGate::new(Some(DEADLINE_MS));
        for round in 0..3 {
            let began = round * (DEADLINE_MS * USE_DEADLINES_MAX + 1);
            let mut ms = began;
            gate.was_useful(at(ms));
            while !gate.policy_plans(at(ms)) {
                gate.looked(at(ms), true);
                gate.was_useful(at(ms));
                ms += 1;
            }
            assert_eq!(ms - began, DEADLINE_MS * USE_DEADLINES_MAX);
        }
    }

    #[test]
    fn an_agent_that_looks_while_nothing_waits_is_not_late() {
        let mut gate = AgentGate::new(Some(DEADLINE_MS));
        for turn in 0..10 {
            gate.looked(at(turn * 5), false);
            assert!(!gate.policy_plans(at(turn * 5)));
        }
    }

    #[test]
    fn without_a_deadline_the_policy_always_plans() {
        let mut gate = AgentGate::new(None);
        gate.looked(at(0), true);
        gate.was_useful(at(0));
        assert!(gate.policy_plans(at(0)));
        assert_eq!(gate.next_deadline(), None);
    }
}
