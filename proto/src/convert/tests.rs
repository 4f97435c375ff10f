//! What goes out comes back the same, and what nobody could mean is refused with its field.

use cloudai_model::{
    AttemptNo, Cause, Invocation, Limits, Mount, Network, Origin, PullPolicy, ReportWhat,
    RetryPolicy, TaskId, TaskType, limits,
};
use proptest::prelude::*;

use super::*;
use crate::cluster::{self, session_down, session_up};
use crate::convert::record::RecordStep;

fn resources() -> impl Strategy<Value = Resources> {
    (
        1..=limits::CPU_MILLI_MAX,
        limits::MEMORY_BYTES_MIN..=1 << 50,
        0_u64..=1 << 50,
        0..=limits::GPU_MILLI_MAX,
    )
        .prop_map(|(cpu_milli, memory_bytes, storage_bytes, gpu_milli)| Resources {
            cpu_milli,
            memory_bytes,
            storage_bytes,
            gpu_milli,
        })
}

fn invocation() -> impl Strategy<Value = Invocation> {
    prop_oneof![
        Just(Invocation::Image),
        "[ -~]{1,20}".prop_map(Invocation::Shell),
        prop::collection::vec("[ -~]{0,10}", 0..4).prop_map(Invocation::Arguments),
    ]
}

prop_compose! {
    fn spec()(
        needs in resources(),
        invocation in invocation(),
        env in prop::collection::btree_map("[A-Z_]{1,8}", "[ -~]{0,9}", 0..4),
        (pids_max, timeout_ms, grace_ms) in
            (1..=limits::PIDS_MAX, prop::option::of(1_u64..9_999), 0_u64..60_000),
        network in prop::sample::select(vec![Network::Default, Network::None]),
        pull in prop::sample::select(
            vec![PullPolicy::Missing, PullPolicy::Always, PullPolicy::Never]),
        mounted in any::<bool>(),
        name in prop::option::of("[a-z]{1,9}"),
        target in prop::option::of("[a-z]{1,9}"),
        (lease_ms, retries_max, crashes_max, sla_milli) in
            (limits::LEASE_MS_MIN..=limits::LEASE_MS_MAX, 0_u32..9, 0_u32..9, 1500_u32..=2500),
        task_type in prop::option::of(prop::sample::select(TaskType::ALL.to_vec())),
    ) -> TaskSpec {
        let mount = Mount { volume: "data".into(), target: "/data".into(), read_only: true };
        TaskSpec {
            image: "busybox:1".into(),
            invocation, env, needs, network, pull, name,
            limits: Limits { pids_max, timeout_ms, grace_ms },
            mounts: mounted.then_some(mount).into_iter().collect(),
            target: target.map(|id| WorkerId::new(&id).unwrap()),
            retry: RetryPolicy { lease_ms, retries_max, crashes_max },
            origin: Origin { user: "ann".into(), task_type, sla_milli },
        }
    }
}

fn attempt() -> impl Strategy<Value = AttemptId> {
    (any::<u64>(), prop::option::of(any::<u32>()), 1..=u32::MAX).prop_map(|(job, index, no)| {
        let task = index.map_or(TaskId::single(job), |index| TaskId::indexed(job, index));
        AttemptId { task, no: AttemptNo(no) }
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let causes = prop_oneof![
        any::<i32>().prop_map(Cause::Exit),
        prop::sample::select(vec![
            Cause::Oom,
            Cause::Timeout,
            Cause::Image,
            Cause::WorkerLost,
            Cause::Infra,
            Cause::Cancelled,
        ]),
    ];
    (causes, ".{0,20}").prop_map(|(cause, message)| Outcome::new(cause, message))
}

fn attempt_report(accepted: bool) -> impl Strategy<Value = AttemptReport> {
    let what = (0_u8..3, any::<u64>(), outcome()).prop_map(move |(kind, at, outcome)| match kind {
        0 if accepted => ReportWhat::Accepted,
        0 | 1 => ReportWhat::Started(Timestamp(at)),
        _ => ReportWhat::Ended {
            started_at: (at % 2 == 1).then_some(Timestamp(at)),
            outcome,
            at: Timestamp(at),
        },
    });
    (attempt(), what).prop_map(|(attempt, what)| AttemptReport { attempt, what })
}

fn held() -> impl Strategy<Value = Vec<AttemptReport>> {
    prop::collection::vec(attempt_report(true), 0..4)
}

fn usage() -> impl Strategy<Value = Usage> {
    let bp = || 0..=Usage::BP_MAX;
    (bp(), bp(), bp(), bp()).prop_map(|(cpu_bp, memory_bp, storage_bp, gpu_bp)| Usage {
        cpu_bp,
        memory_bp,
        storage_bp,
        gpu_bp,
    })
}

fn degraded() -> impl Strategy<Value = Option<String>> {
    prop::option::of(".{1,40}")
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        attempt_report(false).prop_map(Change::State),
        (attempt(), any::<u64>(), ".{0,20}").prop_map(|(attempt, at, text)| Change::Note {
            attempt,
            at: Timestamp(at),
            text
        }),
    ]
}

fn unwrap_up(up: cluster::SessionUp) -> session_up::Message {
    up.message.unwrap()
}

proptest! {
    #[test]
    fn a_spec_survives_the_wire(spec in spec()) {
        prop_assert_eq!(from_wire::spec(to_wire::spec(&spec)).unwrap(), spec);
    }

    #[test]
    fn a_workers_record_survives_its_disk(
        spec in spec(),
        attempt in attempt(),
        session: u64,
        (outcome, at) in (outcome(), any::<u64>()),
        files in prop::collection::vec("[a-z/ü]{1,9}", 0..3),
    ) {
        let steps = [
            RecordStep::Accepted {
                attempt,
                session: Session(session),
                boot_id: "boot".into(),
                spec: Arc::new(spec),
            },
            RecordStep::Created,
            RecordStep::Stopping {
                cause: Cause::WorkerLost,
                begun_at: Timestamp(at),
                kill_at: Timestamp(at + 1),
            },
            RecordStep::Ended {
                started_at: (at % 2 == 1).then_some(Timestamp(at)),
                outcome,
                at: Timestamp(at),
                files,
            },
        ];
        for step in steps {
            prop_assert_eq!(record::decode(&record::encode(&step)).unwrap(), step);
        }
    }

    #[test]
    fn a_damaged_record_is_an_error_and_no_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = record::decode(&bytes);
    }

    #[test]
    fn a_spec_survives_the_unary_wire(spec in spec(), attempt in attempt()) {
        let worker = WorkerId::new("w").unwrap();
        let task = to_wire::task(attempt, &spec, &worker, Timestamp(5_999));
        prop_assert_eq!(&task.task_id, &attempt.to_string());
        prop_assert_eq!(task.submitted_at, 5);
        prop_assert_eq!(from_wire::task(task.clone()).unwrap(), spec.clone());
        let plain = from_wire::task(cluster::Task { spec: None, ..task }).unwrap();
        prop_assert_eq!(plain.needs.cpu_milli, spec.needs.cpu_milli);
        prop_assert_eq!(plain.needs.memory_bytes, spec.needs.memory_bytes);
    }

    #[test]
    fn a_hello_survives_the_wire(
        capacity in resources(),
        held in held(),
        degraded in degraded(),
    ) {
        let worker = Registration {
            id: WorkerId::new("worker-1").unwrap(),
            address: "localhost:50052".into(),
            capacity,
        };
        prop_assert_eq!(&from_wire::worker_info(&to_wire::worker_info(&worker)).unwrap(), &worker);
        let hello = Hello {
            worker,
            session: Some(Session(7)),
            held,
            volumes: BTreeSet::from(["data".to_owned()]),
            version: "0.1.0".into(),
            degraded,
            nonce: u64::MAX,
        };
        let session_up::Message::Hello(wire) = unwrap_up(to_wire::hello(&hello)) else { panic!() };
        prop_assert_eq!(from_wire::hello(wire).unwrap(), hello);
    }

    #[test]
    fn a_report_survives_the_wire(
        sequence: u64,
        changes in prop::collection::vec(change(), 0..5),
        full in prop::option::of((held(), usage(), degraded())),
    ) {
        let full =
            full.map(|(held, usage, degraded)| FullReport { held, usage, degraded });
        let report = Report { sequence, changes, full };
        let session_up::Message::Report(wire) = unwrap_up(to_wire::report(&report)) else {
            panic!()
        };
        prop_assert_eq!(from_wire::report(wire).unwrap(), report);
    }

    #[test]
    fn orders_survive_the_wire(
        acknowledged: u64,
        specs in prop::collection::vec(spec(), 1..3),
        assign in prop::collection::vec((attempt(), any::<prop::sample::Index>()), 0..6),
        stop in prop::collection::vec(attempt(), 0..3),
        forget in prop::collection::vec(attempt(), 0..3),
    ) {
        let specs = specs.into_iter().map(Arc::new).collect::<Vec<_>>();
        let assign = assign
            .into_iter()
            .map(|(attempt, index)| (attempt, index.get(&specs).clone()))
            .collect();
        let stop = stop.into_iter().map(|attempt| (attempt, StopReason::Stale)).collect();
        let orders = Orders { acknowledged, assign, stop, forget };
        let Some(session_down::Message::Orders(wire)) = to_wire::orders(&orders).message else {
            panic!()
        };
        prop_assert!(wire.specs.len() <= specs.len());
        prop_assert_eq!(from_wire::orders(wire).unwrap(), orders);
    }

    #[test]
    fn no_double_makes_a_panic(value: f64) {
        let _ = from_wire::milli("x", value, limits::CPU_MILLI_MAX);
        let _ = from_wire::bytes("x", value);
    }
}

#[test]
fn a_reason_to_be_degraded_is_cut_at_its_bound() {
    let check = |reason: String, want: usize| {
        let full = cluster::FullReport { degraded: reason, ..cluster::FullReport::default() };
        let report = cluster::Report { full: Some(full), ..cluster::Report::default() };
        let got = from_wire::report(report).unwrap().full.unwrap().degraded;
        assert_eq!(got.map(|reason| reason.len()), Some(want));
    };
    check("x".repeat(DEGRADED_LEN_MAX), DEGRADED_LEN_MAX);
    check("x".repeat(DEGRADED_LEN_MAX + 1), DEGRADED_LEN_MAX);
    check(format!("x{}", "ü".repeat(DEGRADED_LEN_MAX)), DEGRADED_LEN_MAX - 1);
}

fn check_info(change: impl FnOnce(&mut cluster::WorkerInfo), want: &str) {
    let mut info = cluster::WorkerInfo {
        worker_id: "worker-1".into(),
        worker_ip: "10.0.0.1".into(),
        total_cpu: 4.0,
        total_memory: 8.0,
        total_storage: 100.0,
        total_gpu: 0.0,
    };
    change(&mut info);
    let got = from_wire::worker_info(&info).map_or_else(|error| error.to_string(), |w| w.address);
    assert!(got.starts_with(want), "{got}");
}

#[test]
fn a_worker_that_makes_no_sense_is_refused_with_the_field() {
    check_info(|_| {}, "10.0.0.1:50052");
    check_info(|info| info.total_cpu = f64::NAN, "total_cpu: NaN is not a number");
    check_info(|info| info.total_memory = f64::INFINITY, "total_memory: inf is not a number");
    check_info(|info| info.total_storage = -1.0, "total_storage: -1 is negative");
    check_info(|info| info.total_gpu = 1e18, "total_gpu: 1000000000000000000 is too much");
    check_info(|info| info.worker_id.clear(), "worker_id: ");
    check_info(|info| info.worker_ip = "http://x".into(), "worker_ip: is not an address");
    check_info(|info| info.worker_ip = "x:0".into(), "worker_ip: has a port");
    check_info(|info| info.worker_ip = "::1".into(), "[::1]:50052");
    check_info(|info| info.worker_ip = "[::1]:7".into(), "[::1]:7");
}

#[test]
fn doubles_are_rounded_to_the_nearest_unit() {
    assert_eq!(from_wire::milli("x", 0.1, 1_000_000), Ok(100));
    assert_eq!(from_wire::milli("x", 1.2345, 1_000_000), Ok(1235));
    assert_eq!(from_wire::bytes("x", 0.5), Ok(512 << 20));
    assert_eq!(from_wire::milli("x", 0.0, 1_000_000), Ok(0));
}

#[test]
fn an_argument_vector_is_quoted_for_a_worker_without_vectors() {
    let mut spec = TaskSpec::new("busybox", TaskSpec::DEFAULT_NEEDS);
    spec.invocation = Invocation::Arguments(["echo", "a b", "it's", ""].map(String::from).to_vec());
    let attempt = AttemptId { task: TaskId::single(1), no: AttemptNo::FIRST };
    let task = to_wire::task(attempt, &spec, &WorkerId::new("w").unwrap(), Timestamp(0));
    assert_eq!(task.command, r"echo 'a b' 'it'\''s' ''");
}

#[test]
fn a_unary_result_says_how_its_attempt_ended() {
    let check = |status: &str, id: &str| {
        let result = cluster::TaskResult {
            task_id: id.into(),
            worker_id: "w".into(),
            status: status.into(),
            ..Default::default()
        };
        from_wire::task_result(result)
            .map_or_else(|error| error.to_string(), |result| result.outcome.cause.to_string())
    };
    assert_eq!(check("success", "task-1-a1"), "exit(0)");
    assert_eq!(check("failed", "task-1-a1"), "exit(1)");
    assert_eq!(check("cancelled", "task-1.5-a2"), "cancelled");
    assert_eq!(check("great", "task-1-a1"), "status: 'great' is not known");
    assert!(check("success", "x").starts_with("task_id: "));
}

#[test]
fn usage_that_makes_no_sense_is_brought_into_bounds() {
    let heartbeat = cluster::Heartbeat {
        worker_id: "w".into(),
        cpu_usage: f64::NAN,
        memory_usage: 250.0,
        storage_usage: -3.0,
        gpu_usage: 12.34,
        running_tasks: vec![
            cluster::RunningTask { task_id: "task-1-a1".into(), ..Default::default() },
            cluster::RunningTask { task_id: "other".into(), ..Default::default() },
        ],
    };
    let got = from_wire::heartbeat(&heartbeat).unwrap();
    let want = Usage { cpu_bp: 0, memory_bp: 10_000, storage_bp: 0, gpu_bp: 1234 };
    assert_eq!((got.usage, got.running.len()), (want, 1));
}

#[test]
fn orders_of_long_specs_travel_in_parts_that_a_transport_takes() {
    let long = |job: u64| {
        let mut spec = TaskSpec::new("busybox", TaskSpec::DEFAULT_NEEDS);
        spec.invocation = Invocation::Shell("x".repeat(60 << 10));
        spec.name = Some(format!("job-{job}"));
        Arc::new(spec)
    };
    let shared = long(0);
    let attempt = |job: u64| AttemptId { task: TaskId::single(job), no: AttemptNo(1) };
    let mut assign: Vec<_> = (1..=100).map(|job| (attempt(job), long(job))).collect();
    assign.extend((101..=9_000).map(|job| (attempt(job), Arc::clone(&shared))));
    let (stop, forget) = (vec![(attempt(9_001), StopReason::Stale)], vec![attempt(9_002)]);
    let orders = Orders { acknowledged: 7, assign, stop, forget };
    let mut got = Orders::default();
    for part in to_wire::orders_in_parts(&orders) {
        let size = prost::Message::encoded_len(&part);
        assert!(size < 4 << 20, "{size}");
        let Some(session_down::Message::Orders(wire)) = part.message else { panic!() };
        let mut part = from_wire::orders(wire).unwrap();
        got.acknowledged = got.acknowledged.max(part.acknowledged);
        got.assign.append(&mut part.assign);
        got.stop.append(&mut part.stop);
        got.forget.append(&mut part.forget);
    }
    assert_eq!(got, orders);
    assert_eq!(to_wire::orders_in_parts(&Orders::default()).len(), 1);
}
