//! The scenarios behind every figure in the docs: `make bench`, or one of them by name.
//!
//! Each starts real processes with an empty data directory, measures CloudAI and, in the same run,
//! something outside of it, and prints a ratio. A figure without its counterpart of the same run
//! means nothing on a noisy machine. Read next: `scenario/`.
#![allow(clippy::print_stdout)]

mod bare_docker;
mod client;
mod cluster;
mod raw_sync;
mod scenario;
mod stats;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

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
        #[arg(long, default_value_t = 100_000)]
        tasks: u32,
    },
    /// Single submits over several connections, against raw synced appends.
    Singles {
        /// Submits in all.
        #[arg(long, default_value_t = 100_000)]
        tasks: u32,
        /// Connections at once.
        #[arg(long, default_value_t = 8)]
        connections: u32,
    },
    /// From a submit to the start on an idle worker, and the restart with tasks queued.
    Latency {
        /// Submits, one after the other.
        #[arg(long, default_value_t = 300)]
        tasks: u32,
    },
    /// Restart of the master with single tasks queued, and with one array of a million.
    Restart {
        /// Single tasks queued.
        #[arg(long, default_value_t = 100_000)]
        tasks: u32,
    },
    /// No-op containers on the real engine, against the bare Docker API, in turns.
    Overhead {
        /// Containers in each round.
        #[arg(long, default_value_t = 24)]
        containers: u32,
        /// Containers at once.
        #[arg(long, default_value_t = 4)]
        at_once: u32,
        /// Rounds of each.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// A local image with a no-op command.
        #[arg(long, default_value = "cloudai-test/busybox")]
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
        Scenario::Overhead { containers, at_once, rounds, image } => {
            scenario::overhead(binary, scenario::Load { containers, at_once, rounds, image })
        }
        Scenario::All => {
            scenario::array(binary, 100_000)?;
            scenario::singles(binary, 100_000, 8)?;
            scenario::latency(binary, 300)?;
            scenario::restart(binary, 100_000)?;
            let image = "cloudai-test/busybox".to_owned();
            let load = scenario::Load { containers: 24, at_once: 4, rounds: 3, image };
            scenario::overhead(binary, load)
        }
    }
}
