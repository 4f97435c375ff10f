//! The binary: picks a role and runs it, or speaks to a master for a client.
//!
//! Everything that is said is understood by `cloudai-cli`; everything that runs is in
//! `cloudai-master` and `cloudai-worker`. What is here is the process: its name, its signals, its
//! log, its exit code. Read next: `roles.rs`, `names.rs`.

mod backup;
mod logging;
mod names;
mod roles;
mod signals;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use cloudai_cli::grammar::{Cli, Command, Global, MasterArgs, WorkerArgs};
use cloudai_cli::{
    Client, DoctorPorts, Failure, HttpBackend, Interrupts, Screen, Session, Settings, doctor,
    run_client, run_task, show_config, write_completions, write_manual,
};
use rustix::fs::Mode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(names::arguments(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let code = obey(&cli).unwrap_or_else(|failure| {
        Screen::standard().failure(&failure);
        failure.exit
    });
    // A role may leave a thread behind that waits for a line on standard input, and such a read
    // cannot be ended; everything that must be kept is kept by now.
    let _ = std::io::stdout().flush();
    std::process::exit(code.into())
}

fn obey(cli: &Cli) -> Result<u8, Failure> {
    let global = &cli.global;
    let mut settings = Settings::of_process(global.config.as_deref())?;
    if keeps_data(&cli.command) {
        // Specs carry secrets in their variables, logs whatever a task prints: for the owner alone.
        rustix::process::umask(Mode::RWXG | Mode::RWXO);
    }
    match &cli.command {
        Command::Up(args) => roles::up(&settings.up(args)?),
        Command::Master(args) => {
            let user = settings.user()?;
            roles::master(&settings.master(args)?, user)
        }
        Command::Worker(args) => roles::worker(&settings.worker(args)?),
        Command::Client(command) => run_client(&mut session(global, &mut settings)?, command),
        Command::Task(args) => run_task(&mut session(global, &mut settings)?, &args.command),
        Command::Backup(args) => backup::take(&mut settings, args, global.json),
        Command::Restore(args) => backup::bring_back(&mut settings, args, global.json),
        Command::Doctor => look_around(global, &mut settings),
        Command::Config => {
            let url = global.master_url.as_deref();
            show_config(&mut settings, url, global.json, &mut Screen::standard())
        }
        Command::Completions { shell } => write_completions(*shell, &mut Screen::standard()),
        Command::Man { dir } => write_manual(dir.as_deref(), &mut Screen::standard()),
    }
}

/// Whether what the command writes is CloudAI's own; a client writes the user's files.
fn keeps_data(command: &Command) -> bool {
    use Command::{Backup, Master, Restore, Up, Worker};
    matches!(command, Up(_) | Master(_) | Worker(_) | Backup(_) | Restore(_))
}

/// What a client's command works with.
fn session(global: &Global, settings: &mut Settings) -> Result<Session, Failure> {
    let url = settings.url(global.master_url.as_deref())?;
    let interrupts = Interrupts::default();
    signals::end_client(interrupts.clone())?;
    Ok(Session {
        client: Client::new(Arc::new(HttpBackend::new(&url)?)),
        screen: Screen::standard(),
        json: global.json,
        user: settings.user()?,
        interrupts,
    })
}

fn look_around(global: &Global, settings: &mut Settings) -> Result<u8, Failure> {
    let mut session = session(global, settings)?;
    let master_named = settings.is_url_named();
    let master = settings.master(&MasterArgs { insecure: true, ..MasterArgs::default() })?;
    let worker = settings.worker(&WorkerArgs { insecure: true, ..WorkerArgs::default() })?;
    let at = |bind: IpAddr, port: u16| SocketAddr::new(bind, port);
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let bind = if master.bind.is_unspecified() { local } else { master.bind };
    let places = DoctorPorts {
        ports: vec![
            (at(bind, master.grpc_port), "workers and agents", "--grpc-port"),
            (at(bind, master.http_port), "clients", "--http-port"),
            (at(bind, worker.port), "a worker", "--port"),
        ],
        data_dir: master.data_dir,
        master_named,
    };
    doctor(&mut session, &places)
}
