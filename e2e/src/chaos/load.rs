//! What the clients do: single tasks, arrays, tasks that fail, that are tried again, that write
//! long logs, that run until they are cancelled. Each says beforehand what it is meant to come to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Chance, interrupt};
use crate::BUSYBOX;
use crate::history::{History, Told};
use crate::judge::Meant;
use crate::web::Api;

/// The shortest that a task may have: what is lost is placed anew within the run.
const LEASE_MS: u64 = 15_000;
/// How often a client asks again before it gives a submit up.
const TRIES_MAX: usize = 20;
const PAUSE: Duration = Duration::from_millis(200);
const ARRAY_LAST: u32 = 4;
/// Most tasks of one client that are not over when it submits the next.
const OPEN_MAX: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Short,
    Long,
    Failing,
    TriedAgain,
    Array,
    Endless,
}

const KINDS: [Kind; 8] = [
    Kind::Short,
    Kind::Short,
    Kind::Short,
    Kind::Long,
    Kind::Failing,
    Kind::TriedAgain,
    Kind::Array,
    Kind::Endless,
];

/// What was submitted so far, by its name.
#[derive(Default)]
pub(super) struct Load {
    meant: Mutex<BTreeMap<String, Meant>>,
}

fn work_of(kind: Kind, name: &str) -> (Value, Meant) {
    let (lines, pause) = match kind {
        Kind::Long => (40, "0.1"),
        Kind::Endless => (2, "0"),
        _ => (6, "0.05"),
    };
    let (last_words, exit_code) = match kind {
        Kind::Failing => ("exit 3", Some(3)),
        Kind::TriedAgain => ("test $CLOUDAI_ATTEMPT -ge 2 || exit 3", Some(0)),
        Kind::Endless => ("exec sleep 600", None),
        _ => ("exit 0", Some(0)),
    };
    let shell = format!(
        "i=0; while [ $i -lt {lines} ]; do echo out $i; echo err $i >&2; i=$((i+1)); \
         sleep {pause}; done; echo {name} >/output/name; {last_words}"
    );
    let mut request = json!({
        "image": BUSYBOX, "shell": shell, "cpus": 1, "memory_bytes": 32 << 20, "grace_ms": 1000,
        "lease_ms": LEASE_MS,
    });
    match kind {
        Kind::TriedAgain => request["retries"] = json!(2),
        Kind::Array => request["array"] = json!({"first": 1, "last": ARRAY_LAST}),
        _ => {}
    }
    let files = BTreeMap::from([("name".to_owned(), format!("{name}\n"))]);
    (request, Meant { exit_code, lines, files })
}

/// The tasks of a job by its first.
fn tasks_of(kind: Kind, first: &str) -> Vec<String> {
    match first.split_once('.') {
        Some((job, _)) if kind == Kind::Array => {
            (1..=ARRAY_LAST).map(|index| format!("{job}.{index}")).collect()
        }
        _ => vec![first.to_owned()],
    }
}

impl Load {
    /// One client: it submits, cancels and looks until it is told to stop.
    pub(super) fn work(
        &self,
        client: u64,
        mut chance: Chance,
        api: &Api,
        history: &History,
        stop: &AtomicBool,
    ) {
        let stopped = || stop.load(Ordering::Relaxed);
        let is_open = |task: &String| {
            interrupt::is_raised() || !matches!(history.look(api, task), Told::Seen(Some(_)))
        };
        let mut open: Vec<String> = Vec::new();
        for number in 0_u64.. {
            if stopped() {
                return;
            }
            let kind = KINDS[chance.below(KINDS.len() as u64) as usize];
            let name = format!("client-{client}-{number}");
            let (request, meant) = work_of(kind, &name);
            self.lock().insert(name.clone(), meant);
            let tries = if chance.below(10) == 0 { 1 } else { TRIES_MAX };
            let Some(first) = submit(tries, api, history, &name, &request) else { continue };
            let tasks = tasks_of(kind, &first);
            if kind == Kind::Endless {
                thread::sleep(chance.ms(0, 3_000));
                while !stopped() && history.cancel(api, &first) == Told::Unknown {
                    thread::sleep(PAUSE);
                }
            }
            // Some do not wait for what they submitted, so that a queue builds up; but it stays one
            // that a slow machine works off.
            let patience = chance.ms(0, 8_000);
            let begun = Instant::now();
            open.extend(tasks);
            while !stopped() && (begun.elapsed() < patience || open.len() > OPEN_MAX) {
                open.retain(is_open);
                if open.is_empty() {
                    break;
                }
                thread::sleep(PAUSE);
            }
            thread::sleep(chance.ms(0, 500));
        }
    }

    /// Waits until every task that the master has is over, for as long as there is progress;
    /// cancels what would run for ever.
    pub(super) fn wait_ended(&self, api: &Api, history: &History, patience: Duration) {
        let (mut moved_at, mut before) = (Instant::now(), usize::MAX);
        while moved_at.elapsed() < patience && !interrupt::is_raised() {
            let open = open_tasks(api);
            let count = open.as_ref().map_or(before, Vec::len);
            if count == 0 {
                return;
            }
            if count < before {
                (moved_at, before) = (Instant::now(), count);
            }
            for (name, task) in open.unwrap_or_default() {
                let is_endless = |meant: &Meant| meant.exit_code.is_none();
                if self.lock().get(&name).is_some_and(is_endless) {
                    history.cancel(api, &task);
                }
            }
            thread::sleep(PAUSE);
        }
    }

    pub(super) fn into_meant(self) -> BTreeMap<String, Meant> {
        self.meant.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Meant>> {
        self.meant.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn submit(
    tries: usize,
    api: &Api,
    history: &History,
    name: &str,
    request: &Value,
) -> Option<String> {
    for _ in 0..tries {
        match history.submit(api, name, request) {
            Told::Submitted(first) => return Some(first),
            Told::Unknown if !interrupt::is_raised() => thread::sleep(PAUSE),
            _ => return None,
        }
    }
    None
}

/// The names of jobs that are not over, with their first task; `None` when the master does not say.
fn open_tasks(api: &Api) -> Option<Vec<(String, String)>> {
    let mut open = Vec::new();
    for job in super::world::jobs(api)? {
        if job["ended"] != true {
            let text = |field: &str| job[field].as_str().map(str::to_owned);
            open.push((text("name")?, text("first_task")?));
        }
    }
    Some(open)
}
