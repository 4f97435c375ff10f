//! A dialogue as a script: what is typed, and everything that is answered.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{AGAIN_WITHIN, Line, ReplEnd, Session, converse, is_again};
use crate::backend::{Backend, BackendError, Request, Response, Stream};
use crate::client::Client;
use crate::interrupt::Interrupts;
use crate::output::Screen;

/// Answers that were written down: it knows nothing of what a master does.
#[derive(Default)]
struct Recorded {
    answers: BTreeMap<String, (u16, String)>,
    asked: Mutex<Vec<String>>,
}

impl Recorded {
    fn answer(&self, request: &Request) -> Response {
        let line = format!("{} {}", request.method.name(), request.path);
        let body = request.body.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        self.asked.lock().unwrap().push(format!("{line} {body}").trim_end().to_owned());
        let none = r#"{"error":{"code":"not_found","message":"no answer was written down"}}"#;
        let known = self.answers.get(&line).map(|(status, body)| (*status, body.as_str()));
        let (status, body) = known.unwrap_or((404, none));
        Response { status, body: body.as_bytes().to_vec() }
    }
}

impl Backend for Recorded {
    fn call(&self, request: &Request) -> Result<Response, BackendError> {
        Ok(self.answer(request))
    }

    fn stream(&self, request: &Request) -> Result<Stream, BackendError> {
        let Response { status, body } = self.answer(request);
        let body: Box<dyn Read + Send> = Box::new(Cursor::new(body));
        Ok(Stream { status, body })
    }

    fn address(&self) -> String {
        "this process".to_owned()
    }
}

#[derive(Clone, Default)]
struct Shown(Arc<Mutex<Vec<u8>>>);

impl Write for Shown {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Drops colours.
struct Plain(Shown);

impl Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.0.write_all(anstream::adapter::strip_str(&text).to_string().as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Types the lines; gives the whole dialogue, what was asked of the master, and the end.
fn dialogue(script: &str, answers: &[(&str, u16, &str)]) -> (String, String) {
    let written = |(line, status, body): &(&str, u16, &str)| {
        ((*line).to_owned(), (*status, (*body).to_owned()))
    };
    let backend = Arc::new(Recorded {
        answers: answers.iter().map(written).collect(),
        ..Recorded::default()
    });
    let shown = Shown::default();
    let plain = || -> Box<dyn Write + Send> { Box::new(Plain(shown.clone())) };
    let mut session = Session {
        client: Client::new(backend.clone()),
        screen: Screen { out: plain(), err: plain(), colour: false, progress: false, ask: false },
        json: false,
        user: Some("ada".to_owned()),
        interrupts: Interrupts::default(),
    };
    let mut echo = shown.clone();
    let mut lines = script.lines();
    let end = converse(&mut session, &mut || match lines.next() {
        Some(line) => {
            writeln!(echo, "master> {line}").unwrap();
            Line::Text(line.to_owned())
        }
        None => Line::End,
    });
    writeln!(echo, "[{end:?}]").unwrap();
    let text = String::from_utf8(shown.0.lock().unwrap().clone()).unwrap();
    let asked = backend.asked.lock().unwrap().join("\n");
    (text, asked)
}

const STATUS: &str = r#"{"workers":{"total":0,"active":0,"inactive":0},"tasks":{"queued":0,
    "assigned":0,"running":0,"succeeded":0,"failed":0,"cancelled":0},"version":"0.1.0",
    "store":"SQLite (/data/cloudai.db)","uptime_ms":5000,"policy":"first_fit",
    "grpc_address":"127.0.0.1:50051"}"#;

const WORKER: &str = r#"{"id":"worker-1","status":"active","address":"localhost:50052",
    "kind":"session","version":"0.1.0","session":3,"registered_at_ms":1,"last_heard_ms_ago":2100,
    "capacity":{"cpus":2.0,"memory_bytes":4294967296,"storage_bytes":10737418240,"gpus":0.0},
    "allocated":{"cpus":0.5,"memory_bytes":536870912,"storage_bytes":0,"gpus":0.0},
    "free":{"cpus":1.5,"memory_bytes":3758096384,"storage_bytes":10737418240,"gpus":0.0},
    "usage":{"cpu":12.5,"memory":40.0,"storage":1.0,"gpu":0.0},"running":1}"#;

const NO_WORKER: &str = r#"{"error":{"code":"worker_not_found","message":"no such worker"}}"#;

#[test]
fn an_empty_cluster_is_described_in_words() {
    let (text, _) = dialogue(
        "\n# a comment\nstatus\nworkers\nlist-tasks\nqueue\ndispatch\nexit",
        &[
            ("GET /api/v1/status", 200, STATUS),
            ("GET /api/v1/workers", 200, r#"{"workers":[]}"#),
            ("GET /api/v1/tasks?limit=50", 200, r#"{"tasks":[]}"#),
            ("GET /api/v1/queue", 200, r#"{"waiting":0,"shapes":[]}"#),
        ],
    );
    insta::assert_snapshot!(text, @r"
    CloudAI Master Node - Interactive CLI
    Type 'help' for available commands
    master> 
    master> # a comment
    master> status
    Total workers: 0
    Active workers: 0
    Inactive workers: 0
    Running tasks: 0
    Waiting tasks: 0 queued, 0 assigned
    Ended tasks: 0 succeeded, 0 failed, 0 cancelled
    Master: version 0.1.0, up 5.0s
    Workers and agents reach it at: 127.0.0.1:50051
    Store: SQLite (/data/cloudai.db)
    Policy: first_fit
    master> workers
    No workers registered yet
    master> list-tasks
    No tasks
    master> queue
    The queue is empty
    master> dispatch
    Nothing waits: every task that fits is placed at once
    master> exit
    Shutting down master...
    [Exit]
    ");
}

#[test]
fn a_task_goes_to_its_worker() {
    let (text, asked) = dialogue(
        "task worker-1 busybox -name x -cpu_cores 1.5 -mem 2 -storage=0.5 -gpu_cores 0 \
         -- echo 'a b'",
        &[
            ("GET /api/v1/workers/worker-1", 200, WORKER),
            (
                "POST /api/v1/jobs",
                201,
                r#"{"job":"7","tasks":1,"first_task":"task-7","existing":false}"#,
            ),
        ],
    );
    insta::assert_snapshot!(text, @r"
    CloudAI Master Node - Interactive CLI
    Type 'help' for available commands
    master> task worker-1 busybox -name x -cpu_cores 1.5 -mem 2 -storage=0.5 -gpu_cores 0 -- echo 'a b'
    Assigning task to worker worker-1...
    Docker Image: busybox
    Task task-7 assigned successfully!
    'monitor task-7' follows it
    [EndOfInput]
    ");
    // The request id is drawn by chance.
    let start = asked.find("\"request_id\":\"").unwrap() + 14;
    let asked = format!("{}…{}", &asked[..start], &asked[start + 32..]);
    insta::assert_snapshot!(asked, @r#"
    GET /api/v1/workers/worker-1
    POST /api/v1/jobs {"request_id":"…","image":"busybox","command":["echo","a b"],"cpus":1.5,"memory_bytes":2147483648,"storage_bytes":536870912,"worker":"worker-1","name":"x","user":"ada"}
    "#);
}

#[test]
fn a_task_for_nobody_creates_nothing() {
    let (text, asked) =
        dialogue("task worker-99 busybox", &[("GET /api/v1/workers/worker-99", 404, NO_WORKER)]);
    insta::assert_snapshot!(text, @r"
    CloudAI Master Node - Interactive CLI
    Type 'help' for available commands
    master> task worker-99 busybox
    error: Worker 'worker-99' not found
    hint: 'workers' lists those that have registered
    [EndOfInput]
    ");
    assert!(!asked.contains("POST"), "{asked}");
}

#[test]
fn what_makes_no_sense_is_answered_with_what_would() {
    let (text, _) = dialogue(
        "frobnicate now\ntask\ntask a b c\ntask busybox -cpu 1\ntask busybox -mem\n\
         task busybox -mem NaN\ntask busybox -cpu_cores -1\ntask busybox -mem 0\n\
         logs\nlogs x\nlist-tasks done\n'open\nstats worker-99",
        &[("GET /api/v1/workers/worker-99", 404, NO_WORKER)],
    );
    insta::assert_snapshot!(text, @r"
    CloudAI Master Node - Interactive CLI
    Type 'help' for available commands
    master> frobnicate now
    Unknown command: frobnicate
    Type 'help' for available commands
    master> task
    Usage: task <worker> <image> [-name <name>] [-cpu_cores <cores>] [-mem <GiB>] [-storage <GiB>] [-gpu_cores <GPUs>] [-- <command>...]
           task <image> [the same]      the scheduler chooses the worker
    master> task a b c
    Usage: task <worker> <image> [-name <name>] [-cpu_cores <cores>] [-mem <GiB>] [-storage <GiB>] [-gpu_cores <GPUs>] [-- <command>...]
           task <image> [the same]      the scheduler chooses the worker
    master> task busybox -cpu 1
    Unknown flag: -cpu
    Usage: task <worker> <image> [-name <name>] [-cpu_cores <cores>] [-mem <GiB>] [-storage <GiB>] [-gpu_cores <GPUs>] [-- <command>...]
           task <image> [the same]      the scheduler chooses the worker
    master> task busybox -mem
    -mem needs a value
    Usage: task <worker> <image> [-name <name>] [-cpu_cores <cores>] [-mem <GiB>] [-storage <GiB>] [-gpu_cores <GPUs>] [-- <command>...]
           task <image> [the same]      the scheduler chooses the worker
    master> task busybox -mem NaN
    error: invalid value 'NaN' for '-mem <SIZE>': 'NaN' is not a number, for example 2 or 1.5
    master> task busybox -cpu_cores -1
    error: invalid value '-1' for '-cpu_cores <N>': -1 is negative: it must be more than 0
    master> task busybox -mem 0
    error: invalid value '0GiB' for '-mem <SIZE>': must be more than 0
    master> logs
    error: the following required arguments were not provided:
      <TASK>

    Usage: logs <TASK>

    For more information, try '--help'.
    master> logs x
    error: invalid value 'x' for '<TASK>': 'x' is not a task: give 42, or 42.7 for a task of an array

    For more information, try '--help'.
    master> list-tasks done
    error: invalid value 'done' for '[STATUS]': 'done' is no status: use one of queued, assigned, running, succeeded, failed, cancelled

    For more information, try '--help'.
    master> 'open
    error: a quote is not closed
    master> stats worker-99
    error: Worker 'worker-99' not found
    hint: 'workers' lists those that have registered
    [EndOfInput]
    ");
}

#[test]
fn workers_and_one_worker_show_what_they_have() {
    let (text, _) = dialogue(
        "stats worker-1\nworkers worker-1 --json",
        &[("GET /api/v1/workers/worker-1", 200, WORKER)],
    );
    insta::assert_snapshot!(text.split("{\n").next().unwrap(), @r"
    CloudAI Master Node - Interactive CLI
    Type 'help' for available commands
    master> stats worker-1
    worker-1  Active  localhost:50052
               TOTAL   ALLOCATED  FREE     IN USE
      CPU      2       0.5        1.5      12 %
      Memory   4 GiB   512 MiB    3.5 GiB  40 %
      Storage  10 GiB  0 B        10 GiB   1 %
      GPU      0       0          0        0 %
      Running tasks: 1
      Last heard: 2.1s ago
      Version: 0.1.0 (stream, session 3)
    master> workers worker-1 --json
    ");
    assert!(text.contains(r#""last_heard_ms_ago": 2100"#), "{text}");
}

#[test]
fn a_worker_that_gets_no_new_work_says_why() {
    let worker = WORKER.replace(
        r#""status":"active""#,
        r#""status":"degraded","reason":"the disk is\u001b 96 % full""#,
    );
    let workers = format!(r#"{{"workers":[{worker}]}}"#);
    let counts = r#""total":2,"degraded":1,"put_aside":1,"#;
    let status = STATUS.replace(r#""total":0,"#, counts);
    let (text, _) = dialogue(
        "workers\nstatus",
        &[("GET /api/v1/workers", 200, &workers), ("GET /api/v1/status", 200, &status)],
    );
    let lines = |from: &str, count| {
        let after = text.lines().skip_while(|line| !line.starts_with(from)).skip(1);
        after.take(count).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(lines("master> workers", 2), @r"
    worker-1  Degraded  localhost:50052
      Gets no new work: the disk is� 96 % full
    ");
    insta::assert_snapshot!(lines("master> status", 5), @r"
    Total workers: 2
    Active workers: 0
    Inactive workers: 0
    Degraded workers: 1
    Workers put aside: 1
    ");
}

#[test]
fn monitor_shows_the_log_and_the_end() {
    let (text, _) = dialogue(
        "monitor 7",
        &[
            (
                "GET /api/v1/tasks/task-7/logs?follow=true",
                200,
                "{\"stream\":\"stdout\",\"attempt\":1,\"at_ms\":5,\"text\":\"hello\\n\"}\n\n\
                 {\"stream\":\"note\",\"attempt\":1,\"at_ms\":5,\"text\":\"5 bytes are missing\"}\n\
                 {\"end\":true,\"status\":\"succeeded\"}\n",
            ),
            (
                "GET /api/v1/tasks/task-7",
                200,
                r#"{"task":"task-7","status":"succeeded","image":"busybox","submitted_at_ms":1,
                "spec":{"needs":{"cpus":1.0,"memory_bytes":1,"storage_bytes":1,"gpus":0.0},
                "pids":1,"grace_ms":1,"lease_ms":1,"retries":0,"crashes_max":5,"network":"default",
                "pull":"missing","sla_multiplier":2.0}}"#,
            ),
        ],
    );
    insta::assert_snapshot!(text, @r"
    CloudAI Master Node - Interactive CLI
    Type 'help' for available commands
    master> monitor 7
    hello
    [cloudai] 5 bytes are missing
    task-7 succeeded
    [EndOfInput]
    ");
}

#[test]
fn help_lists_every_command() {
    let (text, _) = dialogue("help\nhelp stats\nhelp task\nhelp x", &[]);
    insta::assert_snapshot!(text, @r"
    CloudAI Master Node - Interactive CLI
    Type 'help' for available commands
    master> help
    Available commands:
      task <worker> <image>      Send a task to a worker
      task <image>               Send a task; the scheduler chooses its worker
      run <image>                Run a task: submit it, show its output, end with its exit code
      submit <image>             Submit a task or an array of tasks and print its id
      tasks, ps                  List tasks, the newest first
      logs <task>                Show what a task wrote
      cancel <tasks>             Cancel tasks or jobs
      wait <tasks>               Wait until tasks or jobs have ended
      explain <task>             Say why a task is where it is
      files <task> [path]        List the files that a task left in /output, or fetch one
      workers [worker]           Show the workers, or one with what it runs
      queue                      Show what waits and why
      status                     Show the cluster at a glance
      task show <task>           Show one task with everything that is known of it
      dispatch                   Ask for a plan and show what still waits
      monitor <task>             Follow a task's output
      list-tasks [status]        List tasks, of one status when it is named
      stats <worker>             Show one worker with what it runs
      help [command]             List every command
      exit, quit                 Stop the master

    'help <command>' shows its flags; '--json' behind any of them gives JSON
    master> help stats
    Show one worker with what it runs

    Usage: stats <WORKER>

    Arguments:
      <WORKER>  The worker

    master> help task
    Usage: task <worker> <image> [-name <name>] [-cpu_cores <cores>] [-mem <GiB>] [-storage <GiB>] [-gpu_cores <GPUs>] [-- <command>...]
           task <image> [the same]      the scheduler chooses the worker
           task show <task>             shows one task
    master> help x
    Unknown command: x
    Available commands:
      task <worker> <image>      Send a task to a worker
      task <image>               Send a task; the scheduler chooses its worker
      run <image>                Run a task: submit it, show its output, end with its exit code
      submit <image>             Submit a task or an array of tasks and print its id
      tasks, ps                  List tasks, the newest first
      logs <task>                Show what a task wrote
      cancel <tasks>             Cancel tasks or jobs
      wait <tasks>               Wait until tasks or jobs have ended
      explain <task>             Say why a task is where it is
      files <task> [path]        List the files that a task left in /output, or fetch one
      workers [worker]           Show the workers, or one with what it runs
      queue                      Show what waits and why
      status                     Show the cluster at a glance
      task show <task>           Show one task with everything that is known of it
      dispatch                   Ask for a plan and show what still waits
      monitor <task>             Follow a task's output
      list-tasks [status]        List tasks, of one status when it is named
      stats <worker>             Show one worker with what it runs
      help [command]             List every command
      exit, quit                 Stop the master

    'help <command>' shows its flags; '--json' behind any of them gives JSON
    [EndOfInput]
    ");
}

#[test]
fn ctrl_c_twice_stops_and_the_end_of_input_does_not() {
    let (text, _) = dialogue("", &[]);
    assert!(text.ends_with("[EndOfInput]\n"), "{text}");
    let client = Client::new(Arc::new(Recorded::default()));
    let mut session = Session {
        client,
        screen: Screen {
            out: Box::new(Shown::default()),
            err: Box::new(Shown::default()),
            colour: false,
            progress: false,
            ask: false,
        },
        json: false,
        user: None,
        interrupts: Interrupts::default(),
    };
    assert_eq!(converse(&mut session, &mut || Line::Interrupt), ReplEnd::Exit);
}

#[test]
fn a_ctrl_c_long_after_the_first_is_a_first_one() {
    let first = Instant::now();
    assert!(!is_again(None, first));
    assert!(is_again(Some(first), first + AGAIN_WITHIN));
    assert!(!is_again(Some(first), first + AGAIN_WITHIN + Duration::from_millis(1)));
}

#[test]
fn the_failed_tasks_of_an_array_are_named_at_its_end() {
    let job = r#"{"job":"6","name":null,"user":null,"image":"busybox","first_task":"task-6.1",
        "submitted_at_ms":1,"array":{"first":1,"last":9},"ended":true,"counts":{"queued":0,
        "assigned":0,"running":0,"succeeded":5,"failed":4,"cancelled":0}}"#;
    let tasks = r#"{"tasks":[{"task":"task-6.7","job":"6","status":"failed","image":"busybox",
        "submitted_at_ms":1,"outcome":{"cause":"exit","exit_code":9,"message":""}}]}"#;
    let (text, _) = dialogue(
        "wait 6\n",
        &[
            ("GET /api/v1/jobs/6?wait_ms=25000", 200, job),
            ("GET /api/v1/tasks?status=failed&job=6&limit=3", 200, tasks),
        ],
    );
    assert!(text.contains("5 succeeded, 4 failed"), "{text}");
    assert!(text.contains("task-6.7 failed (exit 9)"), "{text}");
    assert!(text.contains("'tasks --job 6 --status failed' lists all of them"), "{text}");
}
