//! Gathers what is left when all is over: from the master, from the engine, from the disks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::SLOTS;
use super::nemesis::Nemesis;
use crate::engine;
use crate::history::end_of;
use crate::judge::{Job, Meant, Task, World};
use crate::watch::Watch;
use crate::web::Api;

/// How long a cluster in which nothing runs may need to clean up.
const TIDY_TIME_MAX: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(200);

/// Every job that the master has; `None` when it does not say.
pub(super) fn jobs(api: &Api) -> Option<Vec<Value>> {
    all(api, "/jobs?limit=1000", "jobs")
}

/// All pages of a list.
fn all(api: &Api, path: &str, field: &str) -> Option<Vec<Value>> {
    let (mut list, mut page) = (Vec::new(), path.to_owned());
    loop {
        let answer = api.get(&page).filter(|answer| answer.status == 200)?.body;
        list.extend(answer[field].as_array()?.iter().cloned());
        match answer["next_cursor"].as_str() {
            Some(cursor) => page = format!("{path}&cursor={cursor}"),
            None => return Some(list),
        }
    }
}

/// Everything, after a while for the cluster to clean up.
pub(super) fn gather(
    api: &Api,
    watch: &Watch,
    nemesis: &Nemesis,
    meant: BTreeMap<String, Meant>,
) -> World {
    let begun = Instant::now();
    let mut leftovers = look_for_leftovers(api, watch, nemesis);
    while !leftovers.is_empty() && begun.elapsed() < TIDY_TIME_MAX {
        std::thread::sleep(PAUSE);
        leftovers = look_for_leftovers(api, watch, nemesis);
    }
    let found = jobs(api).expect("a healed master tells of its jobs");
    let jobs = found.iter().map(|job| Job {
        name: job["name"].as_str().unwrap_or_default().to_owned(),
        tasks: tasks(api, nemesis, job),
    });
    World {
        jobs: jobs.collect(),
        lives: watch.containers(&nemesis.cluster().dir()).into_values().collect(),
        slots: SLOTS,
        samples: Vec::new(),
        leftovers,
        meant,
    }
}

fn tasks(api: &Api, nemesis: &Nemesis, job: &Value) -> Vec<Task> {
    let first = job["first_task"].as_str().unwrap_or_default();
    let ids: Vec<String> = match (first.split_once('.'), job["array"]["last"].as_u64()) {
        (Some((job, first)), Some(last)) => {
            let first = first.parse().expect("an index is a number");
            (first..=last).map(|index| format!("{job}.{index}")).collect()
        }
        _ => vec![first.to_owned()],
    };
    ids.into_iter().map(|id| task(api, nemesis, id)).collect()
}

fn task(api: &Api, nemesis: &Nemesis, id: String) -> Task {
    let cluster = nemesis.cluster();
    let detail = api.get(&format!("/tasks/{id}")).expect("a healed master tells of its tasks").body;
    let attempts = detail["attempts"].as_array().map_or(0, Vec::len) as u64;
    let log = |attempt| ["stdout", "stderr"].map(|stream| cluster.log_of(&id, attempt, stream));
    let logs = (1..=attempts).map(log).collect();
    let files = detail["files"].as_array().into_iter().flatten().map(|file| {
        let path = file["path"].as_str().unwrap_or_default();
        let bytes = cluster.bytes(&format!("/tasks/{id}/files/{path}")).unwrap_or_default();
        (path.to_owned(), String::from_utf8_lossy(&bytes).into_owned())
    });
    Task { end: end_of(&detail), logs, files: files.collect(), id }
}

fn look_for_leftovers(api: &Api, watch: &Watch, nemesis: &Nemesis) -> Vec<String> {
    let cluster = nemesis.cluster();
    let mut left = Vec::new();
    for (id, life) in watch.containers(&cluster.dir()) {
        if !life.is_gone {
            left.push(format!("container {id} of {} on {}", life.attempt, life.worker));
        }
        left.extend(life.volumes.iter().map(|name| format!("volume {name} of {}", life.attempt)));
    }
    for worker in nemesis.worker_ids() {
        let containers = engine::containers_with(&cluster.worker_label(worker));
        left.extend(containers.iter().map(|id| format!("container {id} of {worker}")));
        let files = cluster.worker_leftovers(worker);
        left.extend(files.iter().map(|path| format!("{worker}: {}", path.display())));
        let view = api.get(&format!("/workers/{worker}")).map(|answer| answer.body);
        let running = view.map_or(Value::Null, |view| view["running"].clone());
        if running != 0 {
            left.push(format!("{worker} runs {running} as the master sees it"));
        }
    }
    left
}
