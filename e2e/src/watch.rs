//! What the engine itself says happened: every container of a cluster, with its volumes, from the
//! engine's own events. The judge of the fault tests: it asks nobody whom a fault could have hit.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::process::Process;

/// The events of the engine since this was made.
pub struct Watch {
    events: Process,
}

/// The life of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Life {
    /// The attempt that it ran: `task-1-a1`.
    pub attempt: String,
    /// The worker that made it.
    pub worker: String,
    /// How often it was started.
    pub starts: usize,
    /// When it started first, in nanoseconds since 1970.
    pub started_at: Option<u64>,
    /// When it ended last.
    pub ended_at: Option<u64>,
    /// The signals that it was sent.
    pub signals: Vec<String>,
    /// How it ended, each time.
    pub exit_codes: Vec<i64>,
    /// Whether it is removed.
    pub is_gone: bool,
    /// Its volumes that are not removed.
    pub volumes: BTreeSet<String>,
}

impl Watch {
    /// Begins to watch.
    pub fn start() -> Self {
        let mut command = Command::new("docker");
        // A moment back, so that nothing is missed while the stream opens.
        let since = std::time::UNIX_EPOCH.elapsed().expect("it is after 1970").as_secs() - 1;
        command.args(["events", "--format", "{{json .}}", "--since", &since.to_string()]);
        Self { events: Process::start("docker events", &mut command) }
    }

    /// The containers whose label `cloudai.instance` lies below `folder`, by id.
    pub fn containers(&self, folder: &std::path::Path) -> BTreeMap<String, Life> {
        let folder = folder.to_string_lossy();
        let mut lives = BTreeMap::new();
        for line in self.events.said().lines() {
            // The last line may not be whole yet.
            if let Ok(event) = serde_json::from_str::<Value>(line) {
                take(&event, &folder, &mut lives);
            }
        }
        lives
    }
}

fn take(event: &Value, folder: &str, lives: &mut BTreeMap<String, Life>) {
    let actor = &event["Actor"];
    let (id, attributes) = (actor["ID"].as_str().unwrap_or_default(), &actor["Attributes"]);
    let text = |name: &str| attributes[name].as_str().unwrap_or_default();
    match (event["Type"].as_str(), event["Action"].as_str()) {
        (Some("container"), Some("create")) if text("cloudai.instance").starts_with(folder) => {
            let (attempt, worker) = (text("cloudai.attempt"), text("cloudai.worker"));
            let (attempt, worker) = (attempt.to_owned(), worker.to_owned());
            lives.insert(id.to_owned(), Life { attempt, worker, ..Life::default() });
        }
        (Some("container"), Some(action)) => {
            let Some(life) = lives.get_mut(id) else { return };
            let at = event["timeNano"].as_u64();
            match action {
                "start" => {
                    life.starts += 1;
                    life.started_at = life.started_at.or(at);
                }
                "kill" => life.signals.push(text("signal").to_owned()),
                "die" => {
                    life.exit_codes.extend(text("exitCode").parse::<i64>());
                    life.ended_at = at;
                }
                "destroy" => life.is_gone = true,
                _ => {}
            }
        }
        (Some("volume"), Some("mount")) => {
            if let Some(life) = lives.get_mut(text("container")) {
                life.volumes.insert(id.to_owned());
            }
        }
        (Some("volume"), Some("destroy")) => {
            for life in lives.values_mut() {
                life.volumes.remove(id);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use serde_json::json;

    use super::*;

    fn event(kind: &str, action: &str, id: &str, attributes: &Value) -> Value {
        let actor = json!({"ID": id, "Attributes": attributes});
        json!({"Type": kind, "Action": action, "Actor": actor, "timeNano": 7})
    }

    #[test]
    fn a_life_is_told_from_its_events() {
        let labels = json!({
            "cloudai.instance": "/a/b", "cloudai.attempt": "task-1-a1", "cloudai.worker": "w",
        });
        let foreign = json!({"cloudai.instance": "/c"});
        let volume = json!({"container": "x"});
        let mut lives = BTreeMap::new();
        for event in [
            event("container", "create", "y", &foreign),
            event("container", "create", "x", &labels),
            event("volume", "mount", "v", &volume),
            event("volume", "mount", "u", &volume),
            event("container", "start", "x", &labels),
            event("container", "start", "y", &foreign),
            event("container", "kill", "x", &json!({"signal": "15"})),
            event("container", "die", "x", &json!({"exitCode": "143"})),
            event("volume", "destroy", "v", &json!({})),
            event("container", "destroy", "x", &labels),
        ] {
            take(&event, "/a", &mut lives);
        }
        let life = Life {
            attempt: "task-1-a1".into(),
            worker: "w".into(),
            starts: 1,
            started_at: Some(7),
            ended_at: Some(7),
            signals: vec!["15".into()],
            exit_codes: vec![143],
            is_gone: true,
            volumes: BTreeSet::from(["u".into()]),
        };
        assert_eq!(lives, BTreeMap::from([("x".to_owned(), life)]));
    }
}
