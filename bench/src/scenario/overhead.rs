//! What CloudAI adds to the bare Docker API, in turns, in one run.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use crate::bare_docker;
use crate::client::{Client, unix_ms};
use crate::cluster::{start_master, start_worker};
use crate::stats::{figure, heading, median, rate};

/// Containers of the latency part, one after the other.
const CREATIONS: u32 = 20;

/// How much is run.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) containers: u32,
    pub(crate) at_once: u32,
    pub(crate) rounds: u32,
    pub(crate) image: String,
}

pub(crate) fn overhead(binary: &Path, load: Load) -> Result<()> {
    let Load { containers, at_once, rounds, image } = load;
    heading(&format!(
        "overhead: {containers} no-op containers, {at_once} at once, {rounds} rounds in turns"
    ));
    let dir = tempfile::tempdir()?;
    let master = start_master(binary, &dir.path().join("master"))?;
    let _worker = start_worker(binary, &master, &dir.path().join("worker"), "docker", at_once)?;
    let client = Client::new(&master.http);
    bare_docker::run(&image, at_once, at_once)?;
    through_cloudai(&client, &image, at_once)?;
    let (mut bare, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let alone = rate(containers, bare_docker::run(&image, containers, at_once)?);
        let with = rate(containers, through_cloudai(&client, &image, containers)?);
        bare.push(alone);
        ours.push(with);
        ratios.push(with / alone);
    }
    figure("bare Docker API, median", median(&mut bare), "containers/s");
    figure("CloudAI, median", median(&mut ours), "containers/s");
    figure("ratio CloudAI / bare, median of rounds", median(&mut ratios), "");
    creations(&master.http, &image)
}

fn through_cloudai(client: &Client, image: &str, containers: u32) -> Result<Duration> {
    let mut spec = no_op_container(image);
    spec["array"] = json!({ "first": 1, "last": containers });
    let began = Instant::now();
    let job = client.submit(&spec)?;
    client.wait_job(&job)?;
    Ok(began.elapsed())
}

fn no_op_container(image: &str) -> Value {
    json!({
        "image": image, "command": ["true"], "cpus": 1.0, "memory_bytes": 512 << 20,
        "storage_bytes": 0, "pids": 4096, "pull": "never",
    })
}

/// From the submit to the moment at which the engine says that the container exists.
fn creations(http: &str, image: &str) -> Result<()> {
    let (client, spec) = (Client::new(http), no_op_container(image));
    let (sender, submits) = std::sync::mpsc::channel();
    let created = bare_docker::creations_during(CREATIONS, move || {
        for _ in 0..CREATIONS {
            sender.send(unix_ms())?;
            let job = client.submit(&spec)?;
            client.wait_job(&job)?;
        }
        Ok(())
    })?;
    let mut waits: Vec<f64> = submits
        .iter()
        .zip(created)
        .map(|(submitted, created): (u64, u64)| created.saturating_sub(submitted) as f64)
        .collect();
    figure("submit to container created, median", median(&mut waits), "ms");
    Ok(())
}
