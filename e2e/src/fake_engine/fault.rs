//! What the engine does wrong: by rule, for a call that a test names, or by chance, from a seed.
//! Chance depends on the seed, the call, its subject and how often it was called before, and on
//! nothing else, so that a seed means the same however the calls of a run interleave.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// The calls of the API that an engine is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// `GET /_ping`.
    Ping,
    /// `GET /version`.
    Version,
    /// `GET /info`.
    Info,
    /// `POST /images/create`.
    Pull,
    /// `POST /containers/create`.
    Create,
    /// `POST /containers/{id}/attach`.
    Attach,
    /// `POST /containers/{id}/start`.
    Start,
    /// `POST /containers/{id}/wait`.
    Wait,
    /// `GET /containers/{id}/json`.
    Inspect,
    /// `GET /containers/{id}/logs`.
    Logs,
    /// `POST /containers/{id}/kill`.
    Kill,
    /// `DELETE /containers/{id}`.
    Remove,
    /// `GET /containers/json`.
    List,
    /// `GET /containers/{id}/archive`.
    Archive,
    /// `GET /events`, of one container.
    Events,
}

/// What is wrong with one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is right, but late.
    Late(Duration),
    /// Nothing is done and nothing is answered, until the engine is healed; then the connection
    /// is closed.
    Hang,
    /// What was asked is done; the answer hangs as above.
    HangAfter,
    /// Nothing is done until the test lets such calls go on; then it is right.
    Hold,
    /// Nothing is done; the answer is an error with this status.
    Refuse(u16),
    /// Nothing is done; the connection is closed.
    Close,
    /// What was asked is done; the connection is closed without an answer.
    Lose,
    /// What was asked is done; the connection breaks in the middle of the answer.
    Cut,
    /// What was asked is done; the answer is nonsense.
    Garbage,
}

impl Fault {
    /// Those of which the caller learns at once.
    pub const AT_ONCE: [Self; 7] = [
        Self::Refuse(500),
        Self::Refuse(409),
        Self::Refuse(404),
        Self::Close,
        Self::Lose,
        Self::Cut,
        Self::Garbage,
    ];
}

/// A fault that a test put in the way of a call.
#[derive(Debug, Clone)]
struct Rule {
    call: Call,
    /// Part of the name of the container or image; empty is any.
    subject: String,
    fault: Fault,
    /// How often it still strikes; `None` is always.
    left: Option<u32>,
}

/// Faults by chance.
#[derive(Debug, Clone, Copy)]
struct Chance {
    seed: u64,
    per_mille: u64,
}

/// All faults of an engine.
#[derive(Debug, Default)]
pub(super) struct Faults {
    rules: Vec<Rule>,
    chance: Option<Chance>,
    asked: HashMap<(Call, String), u64>,
}

impl Faults {
    pub(super) fn add(&mut self, call: Call, subject: &str, fault: Fault, times: Option<u32>) {
        self.rules.push(Rule { call, subject: subject.to_owned(), fault, left: times });
    }

    pub(super) fn add_chance(&mut self, seed: u64, per_mille: u64) {
        self.chance = Some(Chance { seed, per_mille });
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
        self.chance = None;
    }

    /// The fault of the next call of this kind.
    pub(super) fn next(&mut self, call: Call, subject: &str) -> Option<Fault> {
        let asked = self.asked.entry((call, subject.to_owned())).or_default();
        *asked += 1;
        let times = *asked;
        let rule = self.rules.iter_mut().find(|rule| {
            rule.call == call && subject.contains(&rule.subject) && rule.left != Some(0)
        });
        if let Some(rule) = rule {
            rule.left = rule.left.map(|left| left - 1);
            return Some(rule.fault);
        }
        self.chance?.fault(call, subject, times)
    }
}

impl Chance {
    fn fault(self, call: Call, subject: &str, times: u64) -> Option<Fault> {
        let mut hasher = DefaultHasher::new();
        (self.seed, call, subject, times).hash(&mut hasher);
        let draw = hasher.finish();
        if draw % 1000 >= self.per_mille {
            return None;
        }
        let late = Duration::from_millis(draw / 1000 % 400);
        let slow = [Fault::Late(late), Fault::Hang, Fault::HangAfter];
        let faults = [&slow[..], &Fault::AT_ONCE].concat();
        Some(faults[(draw / 1_000_000) as usize % faults.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_in_any_order() {
        let calls = [(Call::Start, "a"), (Call::Start, "b"), (Call::Wait, "a"), (Call::Start, "a")];
        let faults = |calls: &[(Call, &str)]| {
            let mut faults = Faults::default();
            faults.add_chance(7, 700);
            let mut drawn: Vec<_> = calls
                .iter()
                .map(|(call, subject)| format!("{call:?} {:?}", faults.next(*call, subject)))
                .collect();
            drawn.sort();
            drawn
        };
        let mut other = calls;
        other.swap(0, 1);
        assert_eq!(faults(&calls), faults(&other));
    }

    #[test]
    fn chance_strikes_as_often_as_it_says_and_in_every_way() {
        let mut faults = Faults::default();
        faults.add_chance(1, 200);
        let drawn: Vec<_> = (0..10_000).filter_map(|_| faults.next(Call::Ping, "")).collect();
        assert!((1_800..2_200).contains(&drawn.len()), "{}", drawn.len());
        let kinds =
            drawn.iter().map(std::mem::discriminant).collect::<std::collections::HashSet<_>>();
        assert_eq!(kinds.len(), 8);
    }

    #[test]
    fn a_rule_strikes_its_call_and_subject_as_often_as_it_was_told() {
        let mut faults = Faults::default();
        faults.add(Call::Create, "task-1-", Fault::Lose, Some(1));
        assert_eq!(faults.next(Call::Start, "cloudai-task-1-a1"), None);
        assert_eq!(faults.next(Call::Create, "cloudai-task-2-a1"), None);
        assert_eq!(faults.next(Call::Create, "cloudai-task-1-a1"), Some(Fault::Lose));
        assert_eq!(faults.next(Call::Create, "cloudai-task-1-a1"), None);
    }
}
