//! The promises, one function each, named after what they keep.

use std::sync::Arc;

use cloudai_model::{
    Cause, Event, JobId, JobShape, LossCause, Outcome, RequestId, Session, Snapshot, TaskId,
    TaskState, TaskStatus, WorkerId,
};

use super::{
    Backend, Pair, array, attempt, finished, fresh_cancelled, lost, pages, placed, registered,
    spec, started, submitted,
};
use crate::page::SCANNED_MAX;
use crate::{JobQuery, PAGE_LEN_MAX, StatusCounts, StoreError, TaskCursor, TaskQuery};

fn exit(code: i32) -> Outcome {
    Outcome::new(Cause::Exit(code), "")
}

fn cancelled() -> Outcome {
    Outcome::new(Cause::Cancelled, "")
}

pub(crate) fn an_empty_store_loads_as_nothing<B: Backend>() {
    let mut pair = Pair::<B>::new();
    assert_eq!(pair.store().load().unwrap(), Snapshot::default());
    let mut reader = pair.reader();
    assert_eq!(reader.counts().unwrap(), StatusCounts::default());
    assert_eq!(reader.find_task(TaskId::single(1)).unwrap(), None);
    assert_eq!(reader.find_task(TaskId::single(u64::MAX)).unwrap(), None);
    assert_eq!(reader.find_job(JobId(1)).unwrap(), None);
    assert!(reader.tasks(&TaskQuery::default()).unwrap().records.is_empty());
    assert!(reader.jobs(&JobQuery::default()).unwrap().jobs.is_empty());
    assert!(reader.attempts(TaskId::single(1)).unwrap().is_empty());
    pair.commit(&[]);
}

pub(crate) fn a_task_is_seen_at_every_step_of_its_life<B: Backend>() {
    let task = TaskId::indexed(2, 4);
    let life = [
        registered("w1", 1),
        submitted(1, spec("a"), JobShape::Single, None),
        submitted(2, spec("b"), array(3, 5), None),
        placed(task, 1, "w1", 1),
        started(task, 1),
        lost(task, 1, LossCause::Failed(Cause::Exit(7))),
        registered("w2", 2),
        placed(task, 2, "w2", 2),
        lost(task, 2, LossCause::WorkerLost),
        placed(task, 3, "w1", 1),
        started(task, 3),
        registered("w1", 3),
        Event::AttemptAdopted { attempt: attempt(task, 3), session: Session(3) },
        Event::CancelRequested { task, at: cloudai_model::Timestamp(9) },
        lost(task, 3, LossCause::Infra),
        finished(task, 4, cancelled()),
        fresh_cancelled(2, 3, 5),
    ];
    // Once with a commit for each event, once in one commit.
    let mut pair = Pair::<B>::new();
    for event in &life {
        pair.commit(std::slice::from_ref(event));
        pair.check_all();
        pair.reopen();
    }
    let mut pair = Pair::<B>::new();
    pair.commit(&life);
    pair.reopen();
    pair.check_all();
    assert_eq!(pair.store().load().unwrap().jobs.len(), 1, "the second job ended");
}

pub(crate) fn a_refused_batch_leaves_no_trace<B: Backend>() {
    let mut pair = Pair::<B>::new();
    pair.commit(&[registered("w1", 1), submitted(1, spec("a"), array(0, 9), None)]);
    let before = pair.store().load().unwrap();
    let task = TaskId::indexed(1, 0);
    let good = [
        registered("w2", 2),
        submitted(2, spec("new"), JobShape::Single, Some("r2")),
        placed(task, 1, "w2", 2),
        fresh_cancelled(1, 5, 9),
    ];
    let mut batch = good.to_vec();
    batch.push(started(TaskId::indexed(1, 1), 1));
    let error = pair.store().commit(&batch).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    assert_eq!(pair.store().load().unwrap(), before);
    pair.check_all();
    assert_eq!(pair.store().find_request(&RequestId::new("r2").unwrap()).unwrap(), None);
    pair.commit(&good);
    pair.reopen();
    pair.check_all();
}

pub(crate) fn what_cannot_happen_is_refused<B: Backend>() {
    let mut pair = Pair::<B>::new();
    let task = |index| TaskId::indexed(1, index);
    pair.commit(&[
        registered("w1", 1),
        submitted(1, spec("a"), array(0, 9), Some("r1")),
        placed(task(0), 1, "w1", 1),
        placed(task(1), 1, "w1", 1),
        finished(task(1), 1, exit(0)),
        placed(task(2), 1, "w1", 1),
        lost(task(2), 1, LossCause::Infra),
        fresh_cancelled(1, 3, 4),
        fresh_cancelled(1, 7, 8),
        fresh_cancelled(1, 9, 9),
    ]);
    let refused = [
        registered("w1", 1),
        submitted(1, spec("a"), JobShape::Single, None),
        submitted(2, spec("a"), JobShape::Single, Some("r1")),
        submitted(2, spec("a"), array(5, 4), None),
        placed(task(0), 1, "w1", 1),
        placed(task(1), 1, "w1", 1),
        placed(task(1), 2, "w1", 1),
        placed(task(2), 1, "w1", 1),
        placed(task(3), 1, "w1", 1),
        placed(task(5), 2, "w1", 1),
        placed(task(5), 1, "nobody", 1),
        placed(task(7), 1, "w1", 1),
        placed(task(9), 1, "w1", 1),
        placed(task(10), 1, "w1", 1),
        placed(TaskId::single(1), 1, "w1", 1),
        placed(TaskId::single(2), 1, "w1", 1),
        started(task(0), 2),
        started(task(1), 1),
        started(task(2), 2),
        started(task(5), 1),
        lost(task(2), 2, LossCause::Infra),
        lost(task(5), 1, LossCause::Infra),
        Event::AttemptAdopted { attempt: attempt(task(2), 2), session: Session(1) },
        Event::CancelRequested { task: task(1), at: cloudai_model::Timestamp(9) },
        Event::CancelRequested { task: task(5), at: cloudai_model::Timestamp(9) },
        finished(task(1), 1, exit(0)),
        finished(task(0), 2, exit(0)),
        finished(task(5), 1, exit(0)),
        fresh_cancelled(2, 0, 0),
    ];
    let before = pair.store().load().unwrap();
    for event in refused {
        let result = pair.store().commit(std::slice::from_ref(&event));
        assert!(matches!(result, Err(StoreError::Corrupt(_))), "{event:?}: {result:?}");
        assert_eq!(pair.store().load().unwrap(), before, "{event:?}");
    }
    pair.check_all();
}

pub(crate) fn a_request_finds_its_job_for_ever<B: Backend>() {
    let mut pair = Pair::<B>::new();
    let find = |pair: &mut Pair<B>, text: &str| {
        pair.store().find_request(&RequestId::new(text).unwrap()).unwrap()
    };
    pair.commit(&[
        submitted(1, spec("a"), JobShape::Single, Some("one")),
        submitted(2, spec("a"), array(3, 4), Some("two")),
        submitted(3, spec("a"), JobShape::Single, None),
    ]);
    assert_eq!(find(&mut pair, "one"), Some((JobId(1), JobShape::Single)));
    assert_eq!(find(&mut pair, "two"), Some((JobId(2), array(3, 4))));
    assert_eq!(find(&mut pair, "three"), None);
    pair.commit(&[fresh_cancelled(2, 0, u32::MAX), fresh_cancelled(1, 0, 0)]);
    pair.reopen();
    assert_eq!(find(&mut pair, "two"), Some((JobId(2), array(3, 4))), "the job has ended");
    assert_eq!(find(&mut pair, "one"), Some((JobId(1), JobShape::Single)));
}

pub(crate) fn equal_specs_are_shared<B: Backend>() {
    let mut pair = Pair::<B>::new();
    for job in 1..=3 {
        let image = if job == 2 { "other" } else { "same" };
        pair.commit(&[submitted(job, spec(image), JobShape::Single, None)]);
    }
    pair.reopen();
    let snapshot = pair.store().load().unwrap();
    let spec = |job| &snapshot.jobs[&JobId(job)].spec;
    assert!(Arc::ptr_eq(spec(1), spec(3)) && spec(2).image == "other");
}

pub(crate) fn spans_are_cancelled_around_what_was_placed<B: Backend>() {
    let mut pair = Pair::<B>::new();
    let task = |index| TaskId::indexed(1, index);
    pair.commit(&[registered("w1", 1), submitted(1, spec("a"), array(0, 29), None)]);
    // Out of order, as an agent may place.
    pair.commit(&[
        placed(task(20), 1, "w1", 1),
        placed(task(0), 1, "w1", 1),
        fresh_cancelled(1, 18, 22),
    ]);
    pair.commit(&[fresh_cancelled(1, 10, 25), placed(task(9), 1, "w1", 1)]);
    pair.commit(&[fresh_cancelled(1, 20, 20), fresh_cancelled(1, 0, 1)]);
    pair.reopen();
    pair.check_all();
    for status in TaskStatus::ALL {
        for newest_first in [false, true] {
            let statuses = vec![status];
            pair.check(&TaskQuery { statuses, newest_first, limit: 4, ..TaskQuery::default() });
        }
    }
    pair.commit(&[finished(task(20), 1, exit(1)), fresh_cancelled(1, 0, 29)]);
    pair.commit(&[finished(task(0), 1, exit(0)), finished(task(9), 1, exit(0))]);
    assert!(pair.store().load().unwrap().jobs.is_empty());
    pair.check_all();
}

pub(crate) fn a_task_alone_can_be_cancelled_before_it_is_placed<B: Backend>() {
    let mut pair = Pair::<B>::new();
    pair.commit(&[submitted(1, spec("a"), JobShape::Single, None), fresh_cancelled(1, 0, 0)]);
    pair.commit(&[submitted(2, spec("a"), array(1, 3), None)]);
    pair.commit(&[fresh_cancelled(2, 2, 2)]);
    pair.commit(&[fresh_cancelled(2, 3, 3), fresh_cancelled(2, 1, 1)]);
    pair.reopen();
    pair.check_all();
    assert!(pair.store().load().unwrap().jobs.is_empty());
}

pub(crate) fn an_array_of_a_million_costs_no_more_than_one<B: Backend>() {
    // Not through the reference, which would write the million out.
    let backend = B::new();
    let mut store = backend.open();
    let task = |index| TaskId::indexed(1, index);
    let last = 999_999;
    store.commit(&[registered("w1", 1), submitted(1, spec("a"), array(0, last), None)]).unwrap();
    store.commit(&[placed(task(0), 1, "w1", 1), placed(task(500_000), 1, "w1", 1)]).unwrap();
    let fresh = store.load().unwrap().jobs[&JobId(1)].fresh.clone();
    assert_eq!(fresh.spans().collect::<Vec<_>>(), [(1, 499_999), (500_001, last)]);

    let mut reader = store.reader().unwrap();
    let queued = |newest_first, limit| TaskQuery {
        statuses: vec![TaskStatus::Queued],
        newest_first,
        limit,
        ..TaskQuery::default()
    };
    let page = reader.tasks(&queued(true, 2)).unwrap();
    let ids: Vec<TaskId> = page.records.iter().map(|record| record.id).collect();
    assert_eq!(ids, [task(last), task(last - 1)]);
    let after = Some(TaskCursor { job: JobId(1), position: 499_998 });
    let page = reader.tasks(&TaskQuery { after, ..queued(false, 2) }).unwrap();
    let ids: Vec<TaskId> = page.records.iter().map(|record| record.id).collect();
    assert_eq!(ids, [task(499_999), task(500_001)]);

    store.commit(&[fresh_cancelled(1, 0, last)]).unwrap();
    let job = store.load().unwrap().jobs.remove(&JobId(1)).unwrap();
    assert!(job.fresh.is_empty() && job.live.len() == 2 && job.ended.cancelled == 999_998);
    let counts = reader.find_job(JobId(1)).unwrap().unwrap().counts;
    assert_eq!((counts.cancelled, counts.assigned, counts.queued), (999_998, 2, 0));
    assert_eq!(reader.counts().unwrap(), counts);
    let record = reader.find_task(task(777_777)).unwrap().unwrap();
    let TaskState::Ended(ended) = record.state else { panic!("{record:?}") };
    assert_eq!((ended.ended_at.0, ended.by), (6_000, None));
    assert!(reader.tasks(&queued(false, 1)).unwrap().records.is_empty());
    drop(store);
    assert_eq!(backend.open().load().unwrap().jobs[&JobId(1)].ended.cancelled, 999_998);
}

pub(crate) fn pages_end_where_the_tasks_end<B: Backend>() {
    let mut pair = Pair::<B>::new();
    pair.commit(&[
        submitted(1, spec("a"), array(0, 1_499), None),
        submitted(2, spec("b"), JobShape::Single, None),
        submitted(3, spec("c"), array(5, 9), None),
    ]);
    let mut reader = pair.reader();
    let mut len = |limit| {
        let page = reader.tasks(&TaskQuery { limit, ..TaskQuery::default() }).unwrap();
        (page.records.len(), page.next.is_some())
    };
    assert_eq!(len(0), (1, true), "a limit of 0 is 1");
    assert_eq!(len(PAGE_LEN_MAX), (PAGE_LEN_MAX, true));
    assert_eq!(len(usize::MAX), (PAGE_LEN_MAX, true), "a limit has a limit");
    let mut exact = |limit, after| {
        let query = TaskQuery { job: Some(JobId(3)), limit, after, ..TaskQuery::default() };
        let page = reader.tasks(&query).unwrap();
        (page.records.len(), page.next.is_some())
    };
    let at = |job, position| Some(TaskCursor { job: JobId(job), position });
    assert_eq!(exact(4, None), (4, true));
    assert_eq!(exact(5, None), (5, false), "the last full page says so");
    assert_eq!(exact(5, at(3, 8)), (1, false));
    assert_eq!(exact(5, at(3, 9)), (0, false));
    assert_eq!(exact(5, at(1, 3)), (5, false), "a cursor of a job before");
    for newest_first in [false, true] {
        for limit in [1, 5, 700, 1_000] {
            pair.check(&TaskQuery { newest_first, limit, ..TaskQuery::default() });
        }
        for (job, position) in [(0, 0), (1, 1_499), (2, 0), (3, 7), (3, 4), (9, 0)] {
            let after = at(job, position);
            pair.check(&TaskQuery { newest_first, after, limit: 100, ..TaskQuery::default() });
        }
    }
}

pub(crate) fn filters_find_what_they_name<B: Backend>() {
    let mut pair = Pair::<B>::new();
    let named = |name: &str, user: &str| {
        let mut spec = spec("a");
        spec.name = Some(name.to_owned());
        spec.origin.user = user.to_owned();
        spec
    };
    let task = |index| TaskId::indexed(1, index);
    pair.commit(&[
        registered("w1", 1),
        registered("w2", 2),
        submitted(1, named("train-large", "ada"), array(0, 20), None),
        submitted(2, named("train-small", "bob"), JobShape::Single, None),
        submitted(3, spec("unnamed"), JobShape::Single, None),
        placed(task(0), 1, "w1", 1),
        placed(task(1), 1, "w2", 2),
        started(task(1), 1),
        placed(task(2), 1, "w2", 2),
        finished(task(2), 1, exit(0)),
        placed(task(3), 1, "w1", 1),
        finished(task(3), 1, Outcome::new(Cause::Oom, "killed")),
        placed(TaskId::single(2), 1, "w1", 1),
        lost(TaskId::single(2), 1, LossCause::Infra),
        fresh_cancelled(1, 18, 20),
        fresh_cancelled(3, 0, 0),
    ]);
    for newest_first in [false, true] {
        let all = TaskQuery { newest_first, limit: 2, ..TaskQuery::default() };
        for status in TaskStatus::ALL {
            pair.check(&TaskQuery { statuses: vec![status], ..all.clone() });
            let statuses = vec![status, TaskStatus::Running];
            pair.check(&TaskQuery { statuses, ..all.clone() });
            let worker = WorkerId::new("w2").ok();
            pair.check(&TaskQuery { statuses: vec![status], worker, ..all.clone() });
        }
        for text in ["train", "large", "unnamed", "Train", "%"] {
            pair.check(&TaskQuery { name: Some(text.to_owned()), ..all.clone() });
        }
        for user in ["ada", "bob", "ad", ""] {
            pair.check(&TaskQuery { user: Some(user.to_owned()), ..all.clone() });
        }
        for worker in ["w1", "w2", "w3"] {
            pair.check(&TaskQuery { worker: WorkerId::new(worker).ok(), ..all.clone() });
        }
        for job in 0..5 {
            pair.check(&TaskQuery { job: Some(JobId(job)), ..all.clone() });
        }
    }
    let mut count = |statuses| {
        let query = TaskQuery { statuses, limit: 9, ..TaskQuery::default() };
        pages(&mut *pair.reader(), &query).len()
    };
    assert_eq!(count(vec![TaskStatus::Cancelled]), 4);
    assert_eq!(count(vec![TaskStatus::Queued]), 15);
}

pub(crate) fn a_rare_match_is_found_by_following_short_pages<B: Backend>() {
    let mut pair = Pair::<B>::new();
    let jobs = SCANNED_MAX as u64 + 10;
    let mut events: Vec<Event> =
        (1..=jobs).map(|job| submitted(job, spec("a"), JobShape::Single, None)).collect();
    let mut rare = spec("a");
    rare.name = Some("rare".to_owned());
    events.push(submitted(jobs + 1, rare, JobShape::Single, None));
    pair.commit(&events);
    let query = TaskQuery { name: Some("rare".to_owned()), limit: 5, ..TaskQuery::default() };
    let page = pair.reader().tasks(&query).unwrap();
    assert!(page.records.is_empty() && page.next.is_some(), "a page does a bounded amount of work");
    pair.check(&query);
}

pub(crate) fn jobs_are_listed_newest_first<B: Backend>() {
    let mut pair = Pair::<B>::new();
    let mut second = spec("b");
    second.name = Some("second".to_owned());
    second.origin.user = "ada".to_owned();
    pair.commit(&[
        submitted(1, spec("a"), JobShape::Single, None),
        submitted(2, second, array(1, 4), None),
        submitted(3, spec("a"), JobShape::Single, None),
        fresh_cancelled(3, 0, 0),
    ]);
    let mut reader = pair.reader();
    let mut list = |query: JobQuery| {
        let page = reader.jobs(&query).unwrap();
        (page.jobs.iter().map(|job| job.id.0).collect::<Vec<_>>(), page.next.map(|job| job.0))
    };
    let all = || JobQuery { limit: 10, ..JobQuery::default() };
    assert_eq!(list(all()), (vec![3, 2, 1], None));
    assert_eq!(list(JobQuery { limit: 2, ..all() }), (vec![3, 2], Some(2)));
    assert_eq!(list(JobQuery { limit: 3, ..all() }), (vec![3, 2, 1], None));
    assert_eq!(list(JobQuery { after: Some(JobId(2)), ..all() }), (vec![1], None));
    assert_eq!(list(JobQuery { open_only: true, ..all() }), (vec![2, 1], None));
    assert_eq!(list(JobQuery { name: Some("eco".into()), ..all() }), (vec![2], None));
    assert_eq!(list(JobQuery { user: Some("ada".into()), ..all() }), (vec![2], None));
    assert_eq!(list(JobQuery { user: Some("bob".into()), ..all() }), (vec![], None));
}

pub(crate) fn lost_attempts_are_remembered<B: Backend>() {
    let mut pair = Pair::<B>::new();
    let task = TaskId::single(1);
    pair.commit(&[registered("w1", 1), submitted(1, spec("a"), JobShape::Single, None)]);
    for no in 1..=3 {
        pair.commit(&[placed(task, no, "w1", 1), lost(task, no, LossCause::WorkerLost)]);
    }
    pair.commit(&[placed(task, 4, "w1", 1), finished(task, 4, exit(0))]);
    pair.reopen();
    pair.check_all();
    let attempts = pair.reader().attempts(task).unwrap();
    let numbers: Vec<u32> = attempts.iter().map(|lost| lost.no.0).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(attempts[2].message, "loss 3");
}

pub(crate) fn a_reader_sees_each_commit_and_nothing_else<B: Backend>() {
    let mut pair = Pair::<B>::new();
    let mut readers = [pair.reader(), pair.reader()];
    pair.commit(&[submitted(1, spec("a"), array(1, 3), None)]);
    for reader in &mut readers {
        assert_eq!(reader.counts().unwrap().queued, 3);
    }
    pair.commit(&[fresh_cancelled(1, 1, 3)]);
    let bad = [submitted(2, spec("a"), JobShape::Single, None), fresh_cancelled(3, 0, 0)];
    assert!(pair.store().commit(&bad).is_err());
    for reader in &mut readers {
        assert_eq!(reader.counts().unwrap().cancelled, 3);
        assert_eq!(reader.find_job(JobId(2)).unwrap(), None);
    }
}
