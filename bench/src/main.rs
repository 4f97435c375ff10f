//! The scenarios behind every figure in the docs: `make bench`, or one of them by name.
//!
//! Each starts real processes with an empty data directory, measures CloudAI and, in the same run,
//! something outside of it, and prints a ratio. A figure without its counterpart of the same run
//! means nothing on a noisy machine. Read next: `scenario/`.
#![allow(clippy::print_stdout, reason = "figures are what it is for")]

mod bare_docker;
mod client;
mod cluster;
mod raw_sync;
mod scenario;
mod stats;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Tasks of a scenario that measures throughput or restarts.
const TASKS: u32 = 100_000;
/// Connections over which single submits come.
const CONNECTIONS: u32 = 8;
/// Tasks that wait while the master is killed.
const WAITING: u32 = 20_000;
/// How often it is killed.
const KILLS: u32 = 5;
/// Submits of the scenario that measures latency.
const SUBMITS: u32 = 300;
/// Containers in each round on the real engine.
const CONTAINERS: u32 = 24;
/// Containers at once.
const AT_ONCE: u32 = 4;
/// Rounds of each.
const ROUNDS: u32 = 3;
/// A local image with a no-op command; `e2e/images/build.sh` makes it.
const IMAGE: &str = "cloudai-test/busybox";

/// Measures CloudAI beside something outside of it.
#[derive(Debug, Parser)]
struct Bench {
    /// The binary to measure.
    #[arg(long, default_value = "target/release/cloudai")]
    binary: PathBuf,
    /// What to measure; everything when none is named.
    #[command(subcommand)]
    scenario: Option<Scenario>,
}

#[derive(Debug, Clone, Subcommand)]
enum Scenario {
    /// One array of no-op tasks through the mock executor, against raw synced appends.
    Array {
        /// Tasks in the array.
        #[arg(long, default_value_t = TASKS)]
        tasks: u32,
    },
    /// Single submits over several connections, against raw synced appends.
    Singles {
        /// Submits in all.
        #[arg(long, default_value_t = TASKS)]
        tasks: u32,
        /// Connections at once.
        #[arg(long, default_value_t = CONNECTIONS)]
        connections: u32,
    },
    /// From a submit to the start on an idle worker.
    Latency {
        /// Submits, one after the other.
        #[arg(long, default_value_t = SUBMITS)]
        tasks: u32,
    },
    /// Restart of the master with single tasks queued, and with one array of a million.
    Restart {
        /// Single tasks queued.
        #[arg(long, default_value_t = TASKS)]
        tasks: u32,
    },
    /// From the start of a master that was killed under load to its first answer and first end.
    Recovery {
        /// Tasks that run and wait meanwhile.
        #[arg(long, default_value_t = WAITING)]
        tasks: u32,
        /// How often it is killed.
        #[arg(long, default_value_t = KILLS)]
        kills: u32,
    },
    /// No-op containers on the real engine, against the bare Docker API, in turns.
    Overhead {
        /// Containers in each round.
        #[arg(long, default_value_t = CONTAINERS)]
        containers: u32,
        /// Containers at once.
        #[arg(long, default_value_t = AT_ONCE)]
        at_once: u32,
        /// Rounds of each.
        #[arg(long, default_value_t = ROUNDS)]
        rounds: u32,
        /// A local image with a no-op command.
        #[arg(long, default_value = IMAGE)]
        image: String,
    },
    /// Everything, one after the other.
    All,
}

fn main() -> Result<()> {
    let bench = Bench::parse();
    let binary = bench.binary.as_path();
    match bench.scenario.unwrap_or(Scenario::All) {
        Scenario::Array { tasks } => scenario::array(binary, tasks),
        Scenario::Singles { tasks, connections } => scenario::singles(binary, tasks, connections),
        Scenario::Latency { tasks } => scenario::latency(binary, tasks),
        Scenario::Restart { tasks } => scenario::restart(binary, tasks),
        Scenario::Recovery { tasks, kills } => scenario::recovery(binary, tasks, kills),
        Scenario::Overhead { containers, at_once, rounds, image } => {
            scenario::overhead(binary, scenario::Load { containers, at_once, rounds, image })
        }
        Scenario::All => {
            scenario::array(binary, TASKS)?;
            scenario::singles(binary, TASKS, CONNECTIONS)?;
            scenario::latency(binary, SUBMITS)?;
            scenario::restart(binary, TASKS)?;
            scenario::recovery(binary, WAITING, KILLS)?;
            let (containers, at_once, rounds) = (CONTAINERS, AT_ONCE, ROUNDS);
            let load = scenario::Load { containers, at_once, rounds, image: IMAGE.to_owned() };
            scenario::overhead(binary, load)
        }
    }
}
