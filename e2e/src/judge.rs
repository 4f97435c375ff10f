//! Compares a history with the world that is left after it: what clients were told, what the
//! master says now, what the engine says happened. It knows the promises and nothing of how they
//! are kept. Each rule is a function; each has a test in which it refuses.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Call, End, Entry, Told};
use crate::watch::Life;

/// What a task was made to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meant {
    /// How its last attempt ends by itself; `None` when it would run until it is cancelled.
    pub exit_code: Option<i64>,
    /// Lines that it writes to each stream: `out 0`, `err 0` and on.
    pub lines: usize,
    /// Output files with their content.
    pub files: BTreeMap<String, String>,
}

/// A task as the master tells of it when all is over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Task {
    /// Its id.
    pub id: String,
    /// How it ended.
    pub end: Option<End>,
    /// What each of its attempts wrote to its two streams.
    pub logs: Vec<[String; 2]>,
    /// Its output files with their content.
    pub files: BTreeMap<String, String>,
}

/// A job as the master tells of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Job {
    /// Its name, which is its request id.
    pub name: String,
    /// Its tasks in order.
    pub tasks: Vec<Task>,
}

/// A look at a worker while the faults happened: cores that the master had given away, and cores
/// that there are.
pub type Sample = (String, f64, f64);

/// Everything that is left.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct World {
    /// What each name was meant to do, also of submits that nobody knows the fate of.
    pub meant: BTreeMap<String, Meant>,
    /// The jobs that the master has.
    pub jobs: Vec<Job>,
    /// The containers that the engine ran.
    pub lives: Vec<Life>,
    /// How many containers a worker may run at once.
    pub slots: usize,
    /// What the master said of its workers, now and then.
    pub samples: Vec<Sample>,
    /// Containers, volumes, mounts and files that nobody removed.
    pub leftovers: Vec<String>,
}

/// Every promise that was broken, in words; none when all was kept.
pub fn judge(history: &[Entry], world: &World) -> Vec<String> {
    let mut broken = Vec::new();
    check_submits(history, world, &mut broken);
    check_looks(history, world, &mut broken);
    check_cancels(history, world, &mut broken);
    for job in &world.jobs {
        match world.meant.get(&job.name) {
            Some(meant) => {
                job.tasks.iter().for_each(|task| check_task(task, meant, &mut broken));
            }
            None => broken.push(format!("nobody submitted the job '{}'", job.name)),
        }
    }
    check_attempts(world, &mut broken);
    check_capacity(world, &mut broken);
    broken.extend(world.leftovers.iter().map(|what| format!("left over: {what}")));
    broken
}

/// What was acknowledged is there once, as it was acknowledged; what is unknown at most once.
fn check_submits(history: &[Entry], world: &World, broken: &mut Vec<String>) {
    let mut jobs: BTreeMap<&str, Vec<&Job>> = BTreeMap::new();
    for job in &world.jobs {
        jobs.entry(&job.name).or_default().push(job);
    }
    for (name, same) in &jobs {
        if same.len() > 1 {
            broken.push(format!("the submit '{name}' made {} jobs", same.len()));
        }
    }
    for entry in history {
        let (Call::Submit(name), Told::Submitted(first)) = (&entry.call, &entry.told) else {
            continue;
        };
        let has_first = |job: &&Job| job.tasks.first().is_some_and(|task| task.id == *first);
        match jobs.get(name.as_str()).and_then(|same| same.first()) {
            None => broken.push(format!("'{name}' was acknowledged as {first} and is lost")),
            Some(job) if has_first(job) => {}
            Some(_) => broken.push(format!("'{name}' was {first} once and is another job now")),
        }
    }
}

/// An end, once seen, never changes, and is not taken back.
fn check_looks(history: &[Entry], world: &World, broken: &mut Vec<String>) {
    let now = world.jobs.iter().flat_map(|job| &job.tasks);
    let now: BTreeMap<&str, &Task> = now.map(|task| (task.id.as_str(), task)).collect();
    for entry in history {
        let (Call::Look(id), Told::Seen(Some(seen))) = (&entry.call, &entry.told) else { continue };
        let end = now.get(id.as_str()).and_then(|task| task.end.as_ref());
        if end != Some(seen) {
            broken.push(format!("{id} was seen as {seen:?} and ended as {end:?}"));
        }
        // A look that began after this one was answered may not see less.
        let later = history.iter().filter(|later| later.begun > entry.done);
        let taken_back = |later: &&Entry| {
            let is_other = |told: &Option<End>| told.as_ref() != Some(seen);
            later.call == entry.call && matches!(&later.told, Told::Seen(told) if is_other(told))
        };
        if let Some(later) = later.into_iter().find(taken_back) {
            broken.push(format!("{id} was seen as {seen:?} and later as {:?}", later.told));
        }
    }
}

/// A cancel that was accepted wins, unless the task had ended by itself; one that found the task
/// ended changes nothing.
fn check_cancels(history: &[Entry], world: &World, broken: &mut Vec<String>) {
    for task in world.jobs.iter().flat_map(|job| &job.tasks) {
        let call = Call::Cancel(task.id.clone());
        let cancels: Vec<_> = history.iter().filter(|entry| entry.call == call).collect();
        let is_cancelled = task.end.as_ref().is_some_and(|(status, ..)| status == "cancelled");
        let at_once =
            |entry: &&&Entry| matches!(entry.told, Told::Cancelled([count, ..]) if count > 0);
        if cancels.iter().any(|entry| at_once(&entry)) && !is_cancelled {
            broken.push(format!("{} was cancelled and ended as {:?}", task.id, task.end));
        }
        let may_have =
            |entry: &&Entry| !matches!(entry.told, Told::Refused(_) | Told::Cancelled([0, 0, _]));
        if is_cancelled && !cancels.into_iter().any(|entry| may_have(&entry)) {
            broken.push(format!("{} is cancelled and nobody asked for it", task.id));
        }
    }
}

/// A task ended as it was meant to, with all that it wrote, or by a cancel.
fn check_task(task: &Task, meant: &Meant, broken: &mut Vec<String>) {
    let id = &task.id;
    let Some((status, cause, code)) = &task.end else {
        broken.push(format!("{id} never ended"));
        return;
    };
    for (index, log) in task.logs.iter().enumerate() {
        for (stream, text) in ["out", "err"].iter().zip(log) {
            if let Some(line) = find_disorder(stream, text) {
                broken.push(format!("{id}-a{}: {stream}: '{line}' is not in its place", index + 1));
            }
        }
    }
    if status == "cancelled" {
        return;
    }
    if cause != "exit" || *code != meant.exit_code {
        broken.push(format!("{id} ended by {cause} {code:?}, meant was {:?}", meant.exit_code));
    }
    let last = task.logs.last().map(|log| log.each_ref().map(|text| text.lines().count()));
    if last != Some([meant.lines; 2]) {
        broken.push(format!("{id}: its log has {last:?} lines, meant were {}", meant.lines));
    }
    if task.files != meant.files {
        broken.push(format!("{id}: its files are {:?}, meant were {:?}", task.files, meant.files));
    }
}

/// The first line that is doubled, out of order, torn or of something else. A gap is no disorder:
/// an attempt that was lost may lack its end.
fn find_disorder<'a>(stream: &str, text: &'a str) -> Option<&'a str> {
    let numbers = text.lines().enumerate();
    let mut wrong = numbers.filter(|(number, line)| *line != format!("{stream} {number}"));
    wrong.next().map(|(_, line)| line)
}

/// No attempt has two containers, and no container starts twice.
fn check_attempts(world: &World, broken: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for life in world.lives.iter().filter(|life| life.starts > 0) {
        if life.starts > 1 || !seen.insert(&life.attempt) {
            broken.push(format!("{} was started twice", life.attempt));
        }
    }
}

/// No worker ever ran more than it has room for, and the master never gave away more.
fn check_capacity(world: &World, broken: &mut Vec<String>) {
    let mut moves: BTreeMap<&str, Vec<(u64, bool)>> = BTreeMap::new();
    for life in &world.lives {
        let moves = moves.entry(&life.worker).or_default();
        moves.extend(life.started_at.map(|at| (at, true)));
        moves.extend(life.ended_at.filter(|_| life.started_at.is_some()).map(|at| (at, false)));
    }
    for (worker, mut moves) in moves {
        // At the same moment an end comes before a start.
        moves.sort_unstable();
        let (mut now, mut most) = (0_usize, 0);
        for (_, starts) in moves {
            now = if starts { now + 1 } else { now - 1 };
            most = most.max(now);
        }
        if most > world.slots {
            broken.push(format!("{worker} ran {most} containers at once, it has {}", world.slots));
        }
    }
    if world.samples.is_empty() && !world.jobs.is_empty() {
        broken.push("nobody looked at what workers were given".to_owned());
    }
    for (worker, given, there_are) in &world.samples {
        if given > there_are {
            broken.push(format!("{worker} was given {given} cores, it has {there_are}"));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use std::time::Duration;

    use super::*;

    fn end(status: &str, cause: &str, code: Option<i64>) -> End {
        (status.to_owned(), cause.to_owned(), code)
    }

    fn entry(second: u64, call: Call, told: Told) -> Entry {
        let begun = Duration::from_secs(second);
        Entry { call, told, begun, done: begun + Duration::from_millis(10) }
    }

    fn life(attempt: &str, from: u64, to: u64) -> Life {
        Life {
            attempt: attempt.to_owned(),
            worker: "worker-1".to_owned(),
            starts: 1,
            started_at: Some(from),
            ended_at: Some(to),
            is_gone: true,
            ..Life::default()
        }
    }

    fn submit() -> Call {
        Call::Submit("a".to_owned())
    }

    fn look() -> Call {
        Call::Look("task-1".to_owned())
    }

    fn cancel() -> Call {
        Call::Cancel("task-1".to_owned())
    }

    fn good() -> (Vec<Entry>, World) {
        let files = BTreeMap::from([("f".to_owned(), "x".to_owned())]);
        let meant = Meant { exit_code: Some(3), lines: 2, files: files.clone() };
        let task = Task {
            id: "task-1".to_owned(),
            end: Some(end("failed", "exit", Some(3))),
            // The first attempt was lost after its first line.
            logs: vec![
                ["out 0\n".to_owned(), String::new()],
                ["out 0\nout 1\n".to_owned(), "err 0\nerr 1\n".to_owned()],
            ],
            files,
        };
        let world = World {
            meant: BTreeMap::from([("a".to_owned(), meant)]),
            jobs: vec![Job { name: "a".to_owned(), tasks: vec![task] }],
            lives: vec![life("task-1-a1", 1, 2), life("task-1-a2", 2, 3)],
            slots: 1,
            samples: vec![("worker-1".to_owned(), 1.0, 1.0)],
            leftovers: Vec::new(),
        };
        let seen = world.jobs[0].tasks[0].end.clone();
        let history = vec![
            entry(0, submit(), Told::Unknown),
            entry(1, submit(), Told::Submitted("task-1".to_owned())),
            entry(2, look(), Told::Seen(None)),
            entry(3, look(), Told::Seen(seen)),
            entry(4, cancel(), Told::Cancelled([0, 0, 1])),
        ];
        (history, world)
    }

    /// Changes the good history, and compares what the judge says of it.
    #[track_caller]
    fn check(change: impl FnOnce(&mut Vec<Entry>, &mut World), want: &[&str]) {
        let (mut history, mut world) = good();
        change(&mut history, &mut world);
        let broken = judge(&history, &world);
        let found = |want: &&str| broken.iter().any(|one| one.contains(*want));
        assert!(want.iter().all(found), "{want:?} is not in {broken:#?}");
        assert_eq!(broken.is_empty(), want.is_empty(), "{broken:#?}");
    }

    fn task(world: &mut World) -> &mut Task {
        &mut world.jobs[0].tasks[0]
    }

    #[test]
    fn what_is_as_it_should_be_is_let_through() {
        check(|_, _| {}, &[]);
        // An unknown submit may have come to nothing.
        check(
            |history, world| {
                *world = World::default();
                history.truncate(1);
            },
            &[],
        );
        // A cancel without an answer may have won.
        check(
            |history, world| {
                history.drain(3..);
                history.push(entry(4, cancel(), Told::Unknown));
                *task(world) = Task {
                    end: Some(end("cancelled", "cancelled", None)),
                    files: BTreeMap::new(),
                    ..task(world).clone()
                };
            },
            &[],
        );
        // A stop that came too late.
        check(|history, _| history[4].told = Told::Cancelled([0, 1, 0]), &[]);
    }

    #[test]
    fn a_lost_submit_is_refused() {
        check(|_, world| world.jobs.clear(), &["was acknowledged as task-1 and is lost"]);
    }

    #[test]
    fn a_doubled_submit_is_refused() {
        check(|_, world| world.jobs.push(world.jobs[0].clone()), &["'a' made 2 jobs"]);
    }

    #[test]
    fn a_job_that_changed_or_that_nobody_wanted_is_refused() {
        let other = |history: &mut Vec<Entry>, _: &mut World| {
            history[1].told = Told::Submitted("task-9".to_owned());
        };
        check(other, &["'a' was task-9 once"]);
        let alien = Job { name: "b".to_owned(), tasks: Vec::new() };
        check(|_, world| world.jobs.push(alien), &["nobody submitted the job 'b'"]);
    }

    #[test]
    fn an_end_that_changed_or_was_taken_back_is_refused() {
        let seen = || Told::Seen(Some(end("succeeded", "exit", Some(0))));
        check(
            |history, _| history.push(entry(5, look(), seen())),
            &["was seen as", "and ended as"],
        );
        let gone = |history: &mut Vec<Entry>, _: &mut World| {
            history.push(entry(5, look(), Told::Seen(None)));
        };
        check(gone, &["and later as Seen(None)"]);
    }

    #[test]
    fn a_task_that_never_ends_is_refused() {
        check(
            |history, world| {
                history.remove(3);
                task(world).end = None;
            },
            &["task-1 never ended"],
        );
    }

    #[test]
    fn a_wrong_end_is_refused() {
        for wrong in [
            end("succeeded", "exit", Some(0)),
            end("failed", "worker_lost", None),
            end("failed", "infra", None),
        ] {
            check(
                |history, world| {
                    history.remove(3);
                    task(world).end = Some(wrong);
                },
                &["meant was Some(3)"],
            );
        }
    }

    #[test]
    fn a_cancel_that_lost_and_one_that_nobody_asked_for_are_refused() {
        check(
            |history, _| history[4].told = Told::Cancelled([1, 0, 0]),
            &["task-1 was cancelled and"],
        );
        check(
            |history, world| {
                history.remove(3);
                task(world).end = Some(end("cancelled", "cancelled", None));
            },
            &["nobody asked for it"],
        );
    }

    #[test]
    fn a_log_that_is_short_doubled_mixed_or_torn_is_refused() {
        for (log, want) in [
            ("out 0\n", "lines, meant were 2"),
            ("out 0\nout 0\nout 1\n", "'out 0' is not in its place"),
            ("out 1\nout 0\n", "'out 1' is not in its place"),
            ("out 0\nerr 1\n", "'err 1' is not in its place"),
            ("out 0\nou", "'ou' is not in its place"),
        ] {
            check(|_, world| task(world).logs[1][0] = log.to_owned(), &[want]);
        }
        let doubled = "out 0\nout 0\n".to_owned();
        check(|_, world| task(world).logs[0][0] = doubled, &["task-1-a1: out: 'out 0'"]);
    }

    #[test]
    fn files_that_are_missing_or_wrong_are_refused() {
        check(|_, world| task(world).files.clear(), &["its files are {}"]);
        check(|_, world| *task(world).files.get_mut("f").unwrap() = "y".into(), &["its files are"]);
    }

    #[test]
    fn an_attempt_with_two_containers_is_refused() {
        check(
            |_, world| world.lives.push(life("task-1-a2", 4, 5)),
            &["task-1-a2 was started twice"],
        );
        check(|_, world| world.lives[0].starts = 2, &["task-1-a1 was started twice"]);
    }

    #[test]
    fn a_worker_that_ran_too_much_is_refused() {
        check(|_, world| world.lives[1].started_at = Some(1), &["ran 2 containers at once"]);
        check(|_, world| world.samples[0].1 = 2.0, &["was given 2 cores, it has 1"]);
        check(|_, world| world.samples.clear(), &["nobody looked"]);
    }

    #[test]
    fn what_is_left_over_is_refused() {
        check(|_, world| world.leftovers.push("a volume".into()), &["left over: a volume"]);
    }
}
