//! C1 and C4, enumerated: a process dies by `kill -9` at each of its points and is started again,
//! and what is seen in the end is what is seen without the fault. TESTING.md says how to do one by
//! hand.
#![allow(clippy::unwrap_used, reason = "all of this is a test, its small functions as well")]

use std::collections::BTreeSet;
use std::path::Path;

use cloudai_e2e::crash::Workload::{
    BeforeItsWorker, CancelledRunning, CancelledWaiting, Plain, SilentRegistry, TriedAgain,
};
use cloudai_e2e::crash::{Workload, check_all, run, whole_log};
use cloudai_e2e::root;
use serde_json::json;

/// Every point of the master, in the order of a task's life, with the work in which it is reached.
const MASTER: &[(&str, Workload)] = &[
    ("master.hello.received", Plain),
    ("master.registered.before_commit", Plain),
    ("master.registered.after_commit", Plain),
    ("master.hello.before_answer", Plain),
    ("master.submit.received", Plain),
    ("master.submitted.before_commit", Plain),
    ("master.submitted.after_commit", Plain),
    ("master.submitted.before_commit", BeforeItsWorker),
    ("master.submitted.after_commit", BeforeItsWorker),
    ("master.submit.before_answer", BeforeItsWorker),
    ("master.submit.before_answer", Plain),
    ("master.wait.begun", Plain),
    ("master.wait.begun", BeforeItsWorker),
    ("master.placed.before_commit", Plain),
    ("master.placed.after_commit", Plain),
    ("master.placed.before_commit", BeforeItsWorker),
    ("master.placed.after_commit", BeforeItsWorker),
    ("master.assign.before_send", Plain),
    ("master.assign.after_send", Plain),
    ("master.report_accepted.received", SilentRegistry),
    ("master.report_accepted.taken", SilentRegistry),
    ("master.report_started.received", Plain),
    ("master.started.before_commit", Plain),
    ("master.started.after_commit", Plain),
    ("master.report_started.taken", Plain),
    ("master.log.before_append", Plain),
    ("master.log.after_append", Plain),
    ("master.log.before_append:2", Plain),
    ("master.log.after_append:2", Plain),
    ("master.log.before_sync", Plain),
    ("master.log.after_sync", Plain),
    ("master.upload.begun", Plain),
    ("master.upload.file_opened", Plain),
    ("master.upload.chunk_written", Plain),
    ("master.upload.file_synced", Plain),
    ("master.upload.file_opened:2", Plain),
    ("master.upload.before_answer", Plain),
    ("master.report_ended.received", Plain),
    ("master.finished.before_commit", Plain),
    ("master.finished.after_commit", Plain),
    ("master.forget.before_send", Plain),
    ("master.forget.after_send", Plain),
    ("master.report_ended.taken", Plain),
    ("master.lost.before_commit", TriedAgain),
    ("master.lost.after_commit", TriedAgain),
    ("master.placed.before_commit:2", TriedAgain),
    ("master.placed.after_commit:2", TriedAgain),
    ("master.finished.after_commit", TriedAgain),
    ("master.cancel.before_commit", CancelledRunning),
    ("master.cancel.after_commit", CancelledRunning),
    ("master.stop.before_send", CancelledRunning),
    ("master.stop.after_send", CancelledRunning),
    ("master.finished.before_commit", CancelledRunning),
    ("master.finished.after_commit", CancelledRunning),
    ("master.fresh_cancelled.before_commit", CancelledWaiting),
    ("master.fresh_cancelled.after_commit", CancelledWaiting),
];

/// Every point of the worker, in the order of a task's life. Where a second point follows, the next
/// process dies there.
const WORKER: &[(&str, Workload)] = &[
    ("worker.hello.before_send", Plain),
    ("worker.welcome.received", Plain),
    ("worker.assign.received", Plain),
    ("worker.accepted.before_record", Plain),
    ("worker.accepted.after_record", Plain),
    ("worker.image.pulling", SilentRegistry),
    ("worker.create.before", Plain),
    ("worker.create.after", Plain),
    ("worker.create.recorded", Plain),
    ("worker.start.before", Plain),
    ("worker.start.after", Plain),
    ("worker.wait.begun", Plain),
    ("worker.log.before_part", Plain),
    ("worker.log.after_part", Plain),
    ("worker.log.before_part:2", Plain),
    ("worker.log.after_part:2", Plain),
    ("worker.wait.ended", Plain),
    ("worker.files.before_gather", Plain),
    ("worker.ended.before_record", Plain),
    ("worker.ended.after_record", Plain),
    ("worker.container.removed", Plain),
    ("worker.run.ended", Plain),
    ("worker.log.before_sync", Plain),
    ("worker.upload.before_chunk", Plain),
    ("worker.upload.after_chunk", Plain),
    ("worker.upload.before_chunk:2", Plain),
    ("worker.upload.taken", Plain),
    ("worker.delivered.before_report", Plain),
    ("worker.report_ended.after_send", Plain),
    ("worker.forget.received", Plain),
    ("worker.forget.before_removal", Plain),
    ("worker.forget.after_removal", Plain),
    ("worker.start.after", TriedAgain),
    ("worker.ended.after_record", TriedAgain),
    ("worker.stop.received", CancelledRunning),
    ("worker.stop.signalled", CancelledRunning),
    ("worker.ended.before_record", CancelledRunning),
    ("worker.ended.after_record", CancelledRunning),
    ("worker.accepted.after_record worker.adopt.found", Plain),
    ("worker.start.after worker.adopt.found", Plain),
    ("worker.start.after worker.hello.before_send", Plain),
    ("worker.start.after worker.welcome.received", Plain),
    ("worker.start.after worker.rejoin.begun", Plain),
    ("worker.start.after worker.rejoin.ended", Plain),
    ("worker.log.after_part worker.log.after_part", Plain),
    ("worker.ended.after_record worker.upload.after_chunk", Plain),
    ("worker.start.after master.adopted.before_commit", Plain),
    ("worker.start.after master.adopted.after_commit", Plain),
    ("worker.ended.after_record master.finished.after_commit", Plain),
];

#[test]
fn c4_worker_killed_at_every_point() {
    check_all(WORKER);
}

#[test]
fn c1_master_killed_at_every_point() {
    check_all(MASTER);
}

/// What the others are compared with is right itself.
#[test]
fn c0_the_work_without_a_fault() {
    let seen = run(Plain, None);
    let code_7 = (json!("exit"), json!(7));
    assert_eq!((seen.jobs, seen.status.as_str(), &seen.outcome), (1, "failed", &code_7));
    let attempt = (code_7.0.clone(), code_7.1.clone(), whole_log("out"), whole_log("err"));
    assert_eq!(seen.attempts, std::slice::from_ref(&attempt));
    let files = [("a", "one\n"), ("deep/b", "two\n")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(seen.files, files.into());
    assert_eq!(seen.containers, [(1, Vec::new(), vec![7])]);
    assert_eq!(run(BeforeItsWorker, None), seen);

    let seen = run(TriedAgain, None);
    assert_eq!(seen.attempts, [attempt.clone(), attempt]);
    assert_eq!(seen.containers, [(1, Vec::new(), vec![7]), (1, Vec::new(), vec![7])]);

    for (workload, status, cause, containers) in [
        (SilentRegistry, "cancelled", "cancelled", 0),
        (CancelledRunning, "cancelled", "cancelled", 1),
        (CancelledWaiting, "cancelled", "cancelled", 0),
    ] {
        let seen = run(workload, None);
        assert_eq!((seen.status.as_str(), &seen.outcome.0), (status, &json!(cause)));
        assert_eq!(seen.containers.len(), containers, "{seen:?}");
    }
}

/// A point that the sources have and no list names is never tried; one that a list names and the
/// sources do not have fails its own row.
#[test]
fn c0_every_point_of_the_sources_is_tried() {
    let mut sources = BTreeSet::new();
    for folder in ["master/src", "worker/src"] {
        collect_points(&root().join(folder), &mut sources);
    }
    let points = MASTER.iter().chain(WORKER).flat_map(|(points, _)| points.split(' '));
    let tried: BTreeSet<String> =
        points.map(|point| point.split(':').next().unwrap().to_owned()).collect();
    assert_eq!(sources, tried);
}

fn collect_points(folder: &Path, points: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_points(&path, points);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for rest in text.split("failpoint!(\"").skip(1) {
            let (name, _) = rest.split_once('"').unwrap();
            assert!(points.insert(name.to_owned()), "{name} stands twice, in {}", path.display());
        }
    }
}
