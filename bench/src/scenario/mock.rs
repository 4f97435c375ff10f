//! What the core, the store and the wire carry when tasks take no time at all.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::client::{Client, no_op, no_op_array, unix_ms};
use crate::cluster::{Process, start_master, start_worker, store_files, store_size};
use crate::raw_sync;
use crate::stats::{figure, heading, median, percentile, rate};

/// Slots of the measured worker, as HyperQueue's zero-work figure was taken with.
const SLOTS: u32 = 1_024;
/// Facts of one task: placed, started, finished.
const FACTS_PER_TASK: u32 = 3;
/// Facts that one sync covers in the raw counterpart.
const FACTS_PER_SYNC: u32 = 512;
const MIB: f64 = (1_u64 << 20) as f64;

pub(crate) fn array(binary: &Path, tasks: u32) -> Result<()> {
    heading(&format!("array: {tasks} no-op tasks as one array, mock executor, durable store"));
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("master");
    let master = start_master(binary, &data)?;
    let worker = start_worker(binary, &master, &dir.path().join("worker"), "mock", SLOTS)?;
    let client = Client::new(&master.http);
    let began = Instant::now();
    let job = client.submit(&no_op_array(tasks))?;
    let submitted = began.elapsed();
    client.wait_job(&job)?;
    let took = began.elapsed();
    figure("submit answered after", submitted.as_secs_f64() * 1000.0, "ms");
    print_run(dir.path(), &data, &master.process, tasks, took)?;
    figure("worker's processor time a task", per_task(&worker, tasks)?, "µs");
    figure("worker's peak memory", worker.peak_memory()? as f64 / MIB, "MiB");
    Ok(())
}

pub(crate) fn singles(binary: &Path, tasks: u32, connections: u32) -> Result<()> {
    heading(&format!("singles: {tasks} submits over {connections} connections, mock executor"));
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("master");
    let master = start_master(binary, &data)?;
    let _worker = start_worker(binary, &master, &dir.path().join("worker"), "mock", SLOTS)?;
    let began = Instant::now();
    let mut latencies = submit_singles(&master.http, tasks, connections)?;
    let submitted = began.elapsed();
    wait_all(&Client::new(&master.http), u64::from(tasks))?;
    let took = began.elapsed();
    figure("submits answered", rate(tasks, submitted), "/s");
    figure("submit answered after, median", median(&mut latencies), "ms");
    figure("submit answered after, 99 %", percentile(&mut latencies, 99), "ms");
    print_run(dir.path(), &data, &master.process, tasks, took)
}

/// Tasks a second, memory, store, and the raw counterpart on the same disk.
fn print_run(dir: &Path, data: &Path, master: &Process, tasks: u32, took: Duration) -> Result<()> {
    let raw = raw_sync::append(dir, tasks * FACTS_PER_TASK, FACTS_PER_SYNC)?;
    figure("tasks from submit to all ended", rate(tasks, took), "/s");
    figure("raw file, same facts, synced by 512", rate(tasks, raw), "tasks/s");
    figure("ratio CloudAI / raw file", raw.as_secs_f64() / took.as_secs_f64(), "");
    figure("master's processor time a task", per_task(master, tasks)?, "µs");
    figure("master's peak memory", master.peak_memory()? as f64 / MIB, "MiB");
    figure("store size", store_size(data)? as f64 / MIB, "MiB");
    Ok(())
}

fn per_task(process: &Process, tasks: u32) -> Result<f64> {
    Ok(process.cpu_time()?.as_secs_f64() * 1e6 / f64::from(tasks))
}

/// Submits over several connections; each submit's time in milliseconds.
fn submit_singles(http: &str, tasks: u32, connections: u32) -> Result<Vec<f64>> {
    let mut threads = Vec::new();
    for index in 0..connections {
        let share = tasks / connections + u32::from(index < tasks % connections);
        let client = Client::new(http);
        threads.push(std::thread::spawn(move || -> Result<Vec<f64>> {
            let spec = no_op();
            let mut latencies = Vec::with_capacity(share as usize);
            for _ in 0..share {
                let began = Instant::now();
                client.submit(&spec)?;
                latencies.push(began.elapsed().as_secs_f64() * 1000.0);
            }
            Ok(latencies)
        }));
    }
    let mut latencies = Vec::with_capacity(tasks as usize);
    for thread in threads {
        let part = thread.join().ok().context("a client thread panicked")??;
        latencies.extend(part);
    }
    Ok(latencies)
}

/// Waits until so many tasks have ended well. The pause is the resolution of the figure.
fn wait_all(client: &Client, tasks: u64) -> Result<()> {
    while client.succeeded()? < tasks {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

pub(crate) fn latency(binary: &Path, tasks: u32) -> Result<()> {
    heading(&format!("latency: {tasks} submits one after the other, idle worker, mock executor"));
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("master");
    let master = start_master(binary, &data)?;
    let _worker = start_worker(binary, &master, &dir.path().join("worker"), "mock", SLOTS)?;
    let client = Client::new(&master.http);
    let (mut answered, mut started, mut ended) = (Vec::new(), Vec::new(), Vec::new());
    // A task that takes no time at all is not reported as started.
    let mut spec = no_op();
    spec["shell"] = "sleep 0".into();
    for _ in 0..tasks {
        let (began, began_ms) = (Instant::now(), unix_ms());
        let job = client.submit(&spec)?;
        answered.push(began.elapsed().as_secs_f64() * 1000.0);
        started.push(client.wait_started(&job)?.saturating_sub(began_ms) as f64);
        ended.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    let mut raw = Vec::new();
    for _ in 0..tasks {
        raw.push(raw_sync::append(dir.path(), FACTS_PER_TASK, 1)?.as_secs_f64() * 1000.0);
    }
    figure("submit answered after, median", median(&mut answered), "ms");
    figure("submit to start on the worker, median (whole ms)", median(&mut started), "ms");
    figure("submit to start on the worker, 99 %", percentile(&mut started, 99), "ms");
    figure("submit to end seen by the client, median", median(&mut ended), "ms");
    figure("submit to end seen by the client, 99 %", percentile(&mut ended, 99), "ms");
    figure("raw file, three synced appends, median", median(&mut raw), "ms");
    figure("ratio CloudAI / raw file", median(&mut ended) / median(&mut raw), "");
    Ok(())
}

pub(crate) fn restart(binary: &Path, tasks: u32) -> Result<()> {
    heading(&format!("restart: kill -9 and start again with {tasks} single tasks queued"));
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("master");
    let mut master = start_master(binary, &data)?;
    let began = Instant::now();
    submit_singles(&master.http, tasks, 8)?;
    figure("submits answered without a worker", rate(tasks, began.elapsed()), "/s");
    figure("master's peak memory", master.process.peak_memory()? as f64 / MIB, "MiB");
    master.process.kill();
    time_restart(binary, &data, u64::from(tasks))?;

    heading("restart: the same with one array of 1,000,000 tasks queued");
    let data = dir.path().join("million");
    let mut master = start_master(binary, &data)?;
    Client::new(&master.http).submit(&no_op_array(1_000_000))?;
    master.process.kill();
    time_restart(binary, &data, 1_000_000)
}

/// Starts the master and asks it how many tasks are queued.
fn time_restart(binary: &Path, data: &Path, queued: u64) -> Result<()> {
    let bytes = store_size(data)?;
    let began = Instant::now();
    for file in store_files(data)? {
        std::fs::read(file)?;
    }
    let read = began.elapsed();
    let began = Instant::now();
    let master = start_master(binary, data)?;
    let status = Client::new(&master.http).get("/status")?;
    let took = began.elapsed();
    let found = status["tasks"]["queued"].as_u64();
    anyhow::ensure!(found == Some(queued), "{found:?} tasks are queued, not {queued}");
    figure("until the first answer", took.as_secs_f64() * 1000.0, "ms");
    figure("raw read of the store's file", read.as_secs_f64() * 1000.0, "ms");
    figure("ratio CloudAI / raw read", took.as_secs_f64() / read.as_secs_f64(), "");
    figure("store size", bytes as f64 / MIB, "MiB");
    figure("memory after the restart", master.process.peak_memory()? as f64 / MIB, "MiB");
    Ok(())
}
