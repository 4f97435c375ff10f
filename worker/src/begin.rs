//! What a worker does before its first hello: it finds the engine, measures the machine, and takes
//! up what the process before it left. It must never end without a word while tasks of that
//! process run on: one that is told to stop meanwhile takes them up first, so that they can be
//! stopped. Read next: `adopt.rs` and `session.rs`.

use std::pin::pin;

use cloudai_model::Resources;
use tokio_util::sync::CancellationToken;

use crate::adopt;
use crate::clock;
use crate::config::{WorkerConfig, WorkerError};
use crate::data_dir::DataDir;
use crate::engine::Executor;
use crate::lease_file::{self, LeaseFile};
use crate::records::{Kept, Phase};
use crate::session::Heritage;
use crate::telemetry::{self, Gpus, Telemetry};

/// A worker that can say hello.
pub(crate) struct Begun {
    pub(crate) executor: Executor,
    /// What it offers.
    pub(crate) capacity: Resources,
    pub(crate) telemetry: Telemetry,
    /// Of the machine.
    pub(crate) boot_id: String,
    pub(crate) lease_file: LeaseFile,
    pub(crate) heritage: Heritage,
}

/// Does all of it, unless it is told to stop and nothing would have to be stopped.
pub(crate) async fn begin(
    config: &WorkerConfig,
    dirs: &DataDir,
    shutdown: &CancellationToken,
) -> Result<Option<Begun>, WorkerError> {
    let records = dirs.read_records()?;
    let count = records.iter().filter(|kept| !matches!(kept.phase, Phase::Ended(_))).count();
    let mut beginning = pin!(begin_with(records, config, dirs, shutdown));
    let begun = match shutdown.run_until_cancelled(&mut beginning).await {
        Some(begun) => begun,
        None if count == 0 => return Ok(None),
        None => {
            tracing::info!(
                "Told to stop: what an earlier process ran is taken up first, to be stopped"
            );
            beginning.await
        }
    };
    match begun {
        // It was told to stop, and so did not ask again.
        Err(_) if count == 0 && shutdown.is_cancelled() => Ok(None),
        Err(why) if shutdown.is_cancelled() => {
            Err(WorkerError::NotStopped { count, why: Box::new(why) })
        }
        begun => begun.map(Some),
    }
}

async fn begin_with(
    records: Vec<Kept>,
    config: &WorkerConfig,
    dirs: &DataDir,
    shutdown: &CancellationToken,
) -> Result<Begun, WorkerError> {
    let executor = Executor::connect(config, dirs.instance(), shutdown).await?;
    let (capacity, telemetry) = measure(config, &executor).await?;
    let boot_id = lease_file::boot_id().map_err(WorkerError::Telemetry)?;
    let lease_file = LeaseFile::new(dirs.lease_path(), boot_id.clone());
    let found = executor.find(config.once, shutdown).await?;
    let attempts = adopt::take_up(&executor, dirs, &boot_id, config, records, found)?;
    let lease = lease_file.take_up(clock::mono());
    let lease = lease.map_err(|source| WorkerError::DataDir { path: dirs.lease_path(), source })?;
    let heritage = Heritage { attempts, lease };
    Ok(Begun { executor, capacity, telemetry, boot_id, lease_file, heritage })
}

/// What this machine has, and the thread that watches it.
async fn measure(
    config: &WorkerConfig,
    executor: &Executor,
) -> Result<(Resources, Telemetry), WorkerError> {
    let probe = tokio::task::spawn_blocking(Gpus::probe).await;
    let gpus = probe.map_err(std::io::Error::other).flatten().map_err(WorkerError::Telemetry)?;
    let told = config.capacity.gpu_milli.map(|milli| milli.div_ceil(1000));
    let wanted = told.map_or(gpus.count, |count| u32::try_from(count).unwrap_or(u32::MAX));
    let count = executor.gpu_count(wanted);
    let mut told = config.capacity;
    told.gpu_milli = told.gpu_milli.map(|milli| milli.min(u64::from(count) * 1000));
    let failed = |error| WorkerError::Telemetry(std::io::Error::other(error));
    let mut system = sysinfo::System::new().map_err(failed)?;
    let capacity = telemetry::capacity(&mut system, &config.data_dir, count, told);
    let telemetry = Telemetry::start(system, &config.data_dir, gpus);
    let telemetry = telemetry.map_err(WorkerError::Telemetry)?;
    Ok((capacity, telemetry))
}
