//! How soon a master that was killed under load does its work again.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::client::{Client, no_op, no_op_array};
use crate::cluster::{start_master, start_worker, store_files, store_size};
use crate::stats::{figure, heading, median};

/// Slots of the worker: it has always something to do and something to wait for.
const SLOTS: u32 = 64;
/// Pause between two looks; the resolution of the figures.
const LOOK_EVERY: Duration = Duration::from_millis(1);
const MIB: f64 = (1_u64 << 20) as f64;

pub(crate) fn recovery(binary: &Path, tasks: u32, kills: u32) -> Result<()> {
    heading(&format!("recovery: {kills} kill -9 of the master while {tasks} tasks run and wait"));
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("master");
    let mut master = start_master(binary, &data)?;
    let _worker = start_worker(binary, &master, &dir.path().join("worker"), "mock", SLOTS)?;
    let client = Client::new(&master.http);
    let mut load = no_op_array(tasks);
    load["shell"] = "sleep 0.05".into();
    client.submit(&load)?;
    let (mut answered, mut ended, mut read) = (Vec::new(), Vec::new(), Vec::new());
    for kill in 1..=kills {
        // Under load: between two kills tasks end.
        wait_more(&client, u64::from(kill * SLOTS))?;
        master.process.kill();
        let began = Instant::now();
        for file in store_files(&data)? {
            std::fs::read(file)?;
        }
        read.push(began.elapsed().as_secs_f64() * 1000.0);
        let began = Instant::now();
        master.start_again(binary, &data)?;
        let client = Client::new(&master.http);
        client.submit(&no_op())?;
        answered.push(began.elapsed().as_secs_f64() * 1000.0);
        wait_more(&client, client.succeeded()? + 1)?;
        ended.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    let (answered, raw) = (median(&mut answered), median(&mut read));
    figure("from start to the first submit answered, median", answered, "ms");
    figure("from start to the first task ended, median", median(&mut ended), "ms");
    figure("raw read of the store's files, median", raw, "ms");
    figure("ratio first answer / raw read", answered / raw, "");
    figure("store size", store_size(&data)? as f64 / MIB, "MiB");
    Ok(())
}

/// Waits until so many tasks have ended well.
fn wait_more(client: &Client, tasks: u64) -> Result<()> {
    while client.succeeded()? < tasks {
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
