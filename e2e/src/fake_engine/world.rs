//! What the engine has: containers, images, faults, and the record of all that happened. One lock
//! around all of it, and one bell that rings whenever something changed. It outlives the server:
//! an engine that stops keeps its containers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Pull;
use super::container::{Container, KILLED, Program, Stage, Step};
use super::fault::{Call, Faults};
use super::journal::Journal;

/// The label that tells whose container it is.
pub(super) const LABEL_ATTEMPT: &str = "cloudai.attempt";

/// An answer without a stream: its status and, unless it is empty, its body.
pub(super) type Answer = (u16, Option<Value>);

/// Everything that stands behind the lock.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) containers: BTreeMap<String, Container>,
    pub(super) images: BTreeSet<String>,
    pub(super) pulls: HashMap<String, Pull>,
    pub(super) faults: Faults,
    pub(super) journal: Journal,
    /// Nothing moves: the engine's process is stopped by a signal.
    pub(super) frozen: bool,
    /// Every container ends with this code as soon as it starts, whatever its program says.
    pub(super) doom: Option<i32>,
    /// How often it was healed; what hangs waits for the next time.
    pub(super) heals: u64,
    /// Calls that are not held any more.
    pub(super) let_go: Vec<Call>,
    /// Parts of the names of containers that need not hold any more.
    pub(super) released: Vec<String>,
    /// What happened to containers since the engine was started, with the container's id.
    pub(super) events: Vec<(String, Value)>,
    /// Pulls that are under way.
    pub(super) pulling: HashMap<String, u32>,
    last_id: u64,
}

/// The lock and the bell.
#[derive(Debug)]
pub(super) struct World {
    state: Mutex<State>,
    bell: watch::Sender<()>,
}

impl World {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), bell: watch::channel(()).0 })
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.bell.send_replace(());
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `find` finds something.
    pub(super) async fn until<T>(&self, find: impl Fn(&State) -> Option<T>) -> T {
        let mut bell = self.bell.subscribe();
        loop {
            bell.borrow_and_update();
            if let Some(found) = self.look(&find) {
                return found;
            }
            bell.changed().await.expect("the bell is part of the world");
        }
    }

    /// Lives a started container to its end.
    pub(super) async fn live(self: Arc<Self>, id: String) {
        let program = self.look(|state| state.containers.get(&id).map(|c| c.program.clone()));
        let Some(program) = program else { return };
        for step in &program.steps {
            match step {
                Step::Say { stderr, text } => self.change(|state| {
                    if let Some(container) = state.running(&id) {
                        container.write(*stderr, text);
                    }
                }),
                Step::Sleep(pause) => tokio::time::sleep(*pause).await,
                Step::Hold => self.until(|state| state.may_go_on(&id).then_some(())).await,
            }
            if self.change(|state| state.running(&id).is_none()) {
                return;
            }
        }
        self.change(|state| state.end(&id, program.exit_code));
    }
}

fn error(status: u16, message: &str) -> Answer {
    (status, Some(json!({"message": message})))
}

fn no_such(id: &str) -> Answer {
    error(404, &format!("No such container: {id}"))
}

/// A reference without the tag that is meant when there is none.
pub(super) fn plain(image: &str) -> String {
    image.strip_suffix(":latest").unwrap_or(image).to_owned()
}

impl State {
    fn running(&mut self, id: &str) -> Option<&mut Container> {
        self.containers.get_mut(id).filter(|container| container.is_running())
    }

    fn may_go_on(&self, id: &str) -> bool {
        self.containers.get(id).is_none_or(|container| {
            !container.is_running()
                || self.released.iter().any(|part| container.name.contains(part.as_str()))
        })
    }

    /// The name of a container, for faults and the journal.
    pub(super) fn name(&self, id: &str) -> String {
        self.containers.get(id).map(|container| container.name.clone()).unwrap_or_default()
    }

    fn end(&mut self, id: &str, code: i32) {
        let Some(container) = self.running(id) else { return };
        container.end(code);
        self.record_exit(id);
    }

    /// Ends every container, as a machine does that loses its power.
    pub(super) fn end_all(&mut self) {
        for id in self.ids() {
            self.end(&id, KILLED);
        }
    }

    /// Stops the containers with `part` in their name, as `docker stop` does, and an engine that is
    /// stopped itself.
    pub(super) fn stop_all(&mut self, part: &str) {
        let ids = self.ids().into_iter();
        for id in ids.filter(|id| self.name(id).contains(part)).collect::<Vec<_>>() {
            self.signal(&id, "SIGTERM");
            self.signal(&id, "SIGKILL");
            self.end(&id, KILLED);
        }
    }

    fn ids(&self) -> Vec<String> {
        self.containers.keys().cloned().collect()
    }

    /// Event number `at` of a container.
    pub(super) fn find_event(&self, id: &str, at: usize) -> Option<Value> {
        if self.frozen {
            return None;
        }
        let mut events = self.events.iter().filter(|(of, _)| of == id);
        events.nth(at).map(|(_, event)| event.clone())
    }

    fn push_event(&mut self, id: &str, action: &str, attributes: &Value) {
        let now = Timestamp::now();
        let event = json!({
            "Type": "container",
            "Action": action,
            "Actor": {"ID": id, "Attributes": attributes},
            "time": now.as_second(),
            "timeNano": now.as_nanosecond() as i64,
        });
        self.events.push((id.to_owned(), event));
    }

    /// Delivers a signal to a container that runs.
    fn signal(&mut self, id: &str, signal: &str) {
        let Some(container) = self.running(id) else { return };
        container.signal(signal);
        let number = if signal == "SIGTERM" { "15" } else { "9" };
        self.push_event(id, "kill", &json!({"signal": number}));
        self.record_exit(id);
    }

    pub(super) fn create(&mut self, name: &str, body: &Value) -> Answer {
        let image = body["Image"].as_str().unwrap_or_default();
        if !self.images.contains(&plain(image)) {
            return error(404, &format!("No such image: {image}"));
        }
        if self.containers.values().any(|container| container.name == name) {
            return error(409, &format!("Conflict. The name \"/{name}\" is already in use"));
        }
        self.last_id += 1;
        let id = format!("{:064x}", self.last_id);
        let container = Container::new(id.clone(), name.to_owned(), body);
        *self.journal.created.entry(container.label(LABEL_ATTEMPT).to_owned()).or_default() += 1;
        self.containers.insert(id.clone(), container);
        (201, Some(json!({"Id": id, "Warnings": []})))
    }

    /// Starts a container; true beside the answer when it has to be lived.
    pub(super) fn start(&mut self, id: &str) -> (Answer, bool) {
        let Some(container) = self.containers.get_mut(id) else { return (no_such(id), false) };
        // One that has ended is started again.
        if container.is_running() {
            return ((304, None), false);
        }
        let now = Timestamp::now();
        match Program::parse(&container.words) {
            Ok(_) if let Some(exit_code) = self.doom => {
                container.program = Program::that_exits(exit_code);
            }
            Ok(program) => container.program = program,
            Err(why) => {
                container.stage = Stage::Exited { since: now, at: now, code: 127 };
                return (error(400, &format!("exec: {why}")), false);
            }
        }
        container.stage = Stage::Running { since: now };
        let attempt = container.label(LABEL_ATTEMPT).to_owned();
        *self.journal.started.entry(attempt).or_default() += 1;
        ((204, None), true)
    }

    pub(super) fn kill(&mut self, id: &str, signal: &str) -> Answer {
        let Some(container) = self.containers.get(id) else { return no_such(id) };
        if !container.is_running() {
            return error(409, &format!("Cannot kill container: {id}: it is not running"));
        }
        self.signal(id, signal);
        (204, None)
    }

    /// Notes the end that something brought.
    fn record_exit(&mut self, id: &str) {
        let Some(container) = self.containers.get(id) else { return };
        if let Stage::Exited { code, .. } = container.stage {
            self.journal.exits.insert(container.label(LABEL_ATTEMPT).to_owned(), code);
            self.push_event(id, "die", &json!({"exitCode": code.to_string()}));
        }
    }

    pub(super) fn remove(&mut self, id: &str, force: bool) -> Answer {
        let Some(container) = self.containers.get(id) else { return no_such(id) };
        if container.is_running() {
            if !force {
                return error(409, "You cannot remove a running container");
            }
            let attempt = container.label(LABEL_ATTEMPT).to_owned();
            self.signal(id, "SIGKILL");
            if self.running(id).is_some() {
                let words = "tried to kill container, but did not receive an exit event";
                return error(500, &format!("Could not kill container {id}: {words}"));
            }
            self.journal.removed_running.push(attempt);
        }
        self.containers.remove(id);
        (204, None)
    }

    pub(super) fn inspect(&self, id: &str) -> Answer {
        self.containers.get(id).map_or_else(|| no_such(id), |c| (200, Some(c.inspect())))
    }

    /// The containers that carry each of the labels, given as `key=value`.
    pub(super) fn list(&self, filters: &Value, all: bool) -> Answer {
        let wanted: Vec<_> =
            filters["label"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let carries = |container: &Container| {
            wanted.iter().all(|wanted| {
                wanted.split_once('=').is_some_and(|(key, value)| container.label(key) == value)
            })
        };
        let containers = self.containers.values();
        let found = containers.filter(|c| (all || c.is_running()) && carries(c));
        (200, Some(found.map(Container::summary).collect()))
    }

    pub(super) fn begin_pull(&mut self, image: &str) {
        let under_way = self.pulling.entry(image.to_owned()).or_default();
        *under_way += 1;
        let most = self.journal.pulls_at_once_max.entry(image.to_owned()).or_default();
        *most = (*most).max(*under_way);
        *self.journal.pulls.entry(image.to_owned()).or_default() += 1;
    }

    pub(super) fn end_pull(&mut self, image: &str) {
        if let Some(under_way) = self.pulling.get_mut(image) {
            *under_way = under_way.saturating_sub(1);
        }
    }
}
