//! Running a role until it is told to stop.

use std::error::Error;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use cloudai_cli::grammar::OnStop;
use cloudai_cli::{
    Failure, Interrupts, MasterSettings, Printer, Prompt, ReplEnd, ReplOptions, ReplStop,
    UpSettings, WorkerSettings, exit, harmless, run_repl,
};
use cloudai_master::{Master, MasterConfig, PolicyKind};
use cloudai_worker::disk::DiskLimits;
use cloudai_worker::executor::docker::VolumeSource;
use cloudai_worker::{
    ATTEMPTS_MAX_DEFAULT, CapacityOverride, ExecutorConfig, LiveCount, WorkerConfig,
};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::signals::OnSignal;

/// How long a prompt may take to give the terminal back.
const PROMPT_END_MAX: Duration = Duration::from_secs(1);

/// What a master says when a signal stops it; the prompt's `exit` says it by itself.
const GOODBYE: &str = "Shutting down master...";
/// How long a scheduling agent may keep a task from the built-in policy.
const AGENT_DEADLINE_MS: u64 = 10_000;

/// What the parts of a role tell each other.
#[derive(Clone, Default)]
struct Role {
    shutdown: CancellationToken,
    interrupts: Interrupts,
    prompt: ReplStop,
    printer: Printer,
}

impl Role {
    /// Starts log and runtime, and listens to signals.
    fn start(&self, log_level: &str, on_signal: OnSignal) -> Result<Runtime, Failure> {
        crate::logging::start(log_level, &self.printer)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|why| Failure::new(format!("cannot start threads: {why}")))?;
        let (interrupts, prompt) = (self.interrupts.clone(), self.prompt.clone());
        let shutdown = self.shutdown.clone();
        let inside = runtime.enter();
        let listening = crate::signals::stop_role(interrupts, prompt, shutdown, on_signal);
        drop(inside);
        listening.map(|()| runtime)
    }
}

/// `cloudai master`.
pub(crate) fn master(settings: &MasterSettings, user: Option<String>) -> Result<u8, Failure> {
    let role = Role::default();
    let runtime = role.start(&settings.log_level, OnSignal::Stop(Some(GOODBYE)))?;
    warn_of_strangers(settings);
    runtime.block_on(async {
        let master = start_master(settings, role.shutdown.clone()).await?;
        let prompt = wants_prompt(settings.prompt)
            .then(|| start_prompt(&master, settings, &role, user))
            .transpose()?;
        let ended = master.wait().await.map_err(|error| failure(&error));
        if let Some(prompt) = prompt {
            give_back_terminal(&role, &prompt);
        }
        ended.map(|()| exit::OK)
    })
}

/// `cloudai worker`.
pub(crate) fn worker(settings: &WorkerSettings) -> Result<u8, Failure> {
    let config = worker_config(settings)?;
    let role = Role::default();
    let live_count = LiveCount::default();
    let on_signal = match settings.on_stop {
        OnStop::Stop => OnSignal::Stop(None),
        OnStop::Keep => OnSignal::Leave(live_count.clone()),
    };
    let runtime = role.start(&settings.log_level, on_signal)?;
    let worker = cloudai_worker::run(config, live_count, role.shutdown);
    let ended = runtime.block_on(worker);
    ended.map(|()| exit::OK).map_err(|error| failure(&error))
}

/// `cloudai up`.
pub(crate) fn up(settings: &UpSettings) -> Result<u8, Failure> {
    let mut config = worker_config(&settings.worker)?;
    let role = Role::default();
    let runtime = role.start(&settings.master.log_level, OnSignal::Stop(Some(GOODBYE)))?;
    warn_of_strangers(&settings.master);
    runtime.block_on(async {
        // The master stops after the worker, so that it still hears what the worker ran.
        let stop_master = CancellationToken::new();
        let master = start_master(&settings.master, stop_master.clone()).await?;
        // The port that was really taken: the settings may say 0.
        let port = master.grpc_addr().port();
        if let Some((host, _)) = config.master.rsplit_once(':') {
            config.master = format!("{host}:{port}");
        }
        tracing::info!("{}", how_to_go_on(master.http_addr()));
        let prompt = (settings.master.prompt == Prompt::Always)
            .then(|| start_prompt(&master, &settings.master, &role, None))
            .transpose()?;
        let ended = run_both(master, stop_master, config, &role).await;
        if let Some(prompt) = prompt {
            give_back_terminal(&role, &prompt);
        }
        ended.map(|()| exit::OK)
    })
}

/// Runs both until one ends or both are told to.
async fn run_both(
    master: Master,
    stop_master: CancellationToken,
    config: WorkerConfig,
    role: &Role,
) -> Result<(), Failure> {
    let worker = async {
        let shutdown = role.shutdown.clone();
        let ended = cloudai_worker::run(config, LiveCount::default(), shutdown).await;
        stop_master.cancel();
        ended.map_err(|error| failure(&error))
    };
    let master = async {
        let ended = master.wait().await;
        role.shutdown.cancel();
        ended.map_err(|error| failure(&error))
    };
    let (worker, master) = tokio::join!(worker, master);
    worker.and(master)
}

fn how_to_go_on(http: SocketAddr) -> String {
    let default = "127.0.0.1:8080";
    let reached = if http.ip().is_unspecified() {
        format!("127.0.0.1:{}", http.port())
    } else {
        http.to_string()
    };
    let url = if reached == default {
        String::new()
    } else {
        format!("export CLOUDAI_URL=http://{reached}\n  ")
    };
    format!(
        "CloudAI is up. In another terminal:\n  {url}cloudai run busybox echo hello\n  \
         cloudai status\nCtrl-C stops it; what was accepted is kept and goes on at the next start."
    )
}

async fn start_master(
    settings: &MasterSettings,
    shutdown: CancellationToken,
) -> Result<Master, Failure> {
    let policy = PolicyKind::find(&settings.policy).ok_or_else(|| {
        let names = PolicyKind::ALL.map(PolicyKind::name).join(", ");
        Failure::usage(format!("there is no policy '{}'", settings.policy))
            .hint(format!("use one of {names}"))
    })?;
    let config = MasterConfig {
        grpc_addr: SocketAddr::new(settings.bind, settings.grpc_port),
        http_addr: SocketAddr::new(settings.bind, settings.http_port),
        data_dir: settings.data_dir.clone(),
        policy,
        agent_deadline_ms: Some(AGENT_DEADLINE_MS),
        host_names: settings.bind.is_loopback().then(Vec::new),
    };
    Master::start(config, shutdown).await.map_err(|error| failure(&error))
}

fn worker_config(settings: &WorkerSettings) -> Result<WorkerConfig, Failure> {
    let milli = |count: f64| (count * 1000.0).round() as u64;
    let id = settings.id.parse().map_err(|why| Failure::usage(format!("--id: {why}")))?;
    Ok(WorkerConfig {
        id,
        host: settings.ip.clone(),
        master: settings.master.clone(),
        listen: SocketAddr::new(settings.bind, settings.port),
        data_dir: settings.data_dir.clone(),
        executor: match settings.executor.as_str() {
            "mock" => ExecutorConfig::Mock,
            _ => ExecutorConfig::Docker { host: None },
        },
        volumes: settings
            .volumes
            .iter()
            .map(|volume| (volume.name.clone(), VolumeSource::HostPath(volume.path.clone())))
            .collect(),
        pull_stall: Duration::from_millis(settings.pull_stall_ms),
        capacity: CapacityOverride {
            cpu_milli: settings.cpus.map(milli),
            memory_bytes: settings.memory_bytes,
            storage_bytes: settings.storage_bytes,
            gpu_milli: None,
        },
        disk: DiskLimits::new(settings.log_bytes_max, settings.disk_percent_max)
            .map_err(|error| Failure::usage(error.to_string()))?,
        attempts_max: ATTEMPTS_MAX_DEFAULT,
        once: settings.once,
    })
}

fn warn_of_strangers(settings: &MasterSettings) {
    if !settings.bind.is_loopback() {
        tracing::warn!(
            "Listening at {} without TLS and tokens (--insecure): whoever reaches it can run \
             containers on every worker",
            settings.bind
        );
    }
}

/// With a terminal or a script on standard input; never for a service, whose standard input is
/// closed or /dev/null.
fn wants_prompt(prompt: Prompt) -> bool {
    match prompt {
        Prompt::Always => true,
        Prompt::Never => false,
        Prompt::Auto => {
            let script = std::fs::metadata("/dev/stdin").is_ok_and(|input| {
                input.is_file() || input.file_type().is_fifo() || input.file_type().is_socket()
            });
            std::io::stdin().is_terminal() || script
        }
    }
}

/// Starts the prompt on a thread of its own. Only its `exit` stops the master.
fn start_prompt(
    master: &Master,
    settings: &MasterSettings,
    role: &Role,
    user: Option<String>,
) -> Result<Receiver<ReplEnd>, Failure> {
    let runtime = tokio::runtime::Handle::current();
    let backend = Arc::new(master.backend(runtime));
    let options = ReplOptions {
        history_file: Some(settings.data_dir.join("history")),
        user,
        printer: role.printer.clone(),
        stop: role.prompt.clone(),
        interrupts: role.interrupts.clone(),
    };
    let (tell, ended) = sync_channel(1);
    let shutdown = role.shutdown.clone();
    std::thread::Builder::new()
        .name("prompt".to_owned())
        .spawn(move || {
            let end = run_repl(backend, options);
            if end == ReplEnd::Exit {
                shutdown.cancel();
            }
            let _ = tell.send(end);
        })
        .map_err(|why| Failure::new(format!("cannot start the prompt: {why}")))?;
    Ok(ended)
}

/// Waits for the prompt to end where it can: an editor must put the terminal back as it was.
fn give_back_terminal(role: &Role, prompt: &Receiver<ReplEnd>) {
    role.prompt.stop();
    if std::io::stdin().is_terminal() {
        let _ = prompt.recv_timeout(PROMPT_END_MAX);
    }
}

/// An error with every cause behind it, once.
pub(crate) fn failure(error: &dyn Error) -> Failure {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    Failure::new(harmless(&text))
}
