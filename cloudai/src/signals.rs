//! Signals, turned into words that the rest understands.

use std::thread;

use cloudai_cli::{Failure, Interrupts, ReplStop, exit};
use cloudai_worker::LiveCount;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// For a client: Ctrl-C goes to whatever waits, and ends the process when nothing does.
pub(crate) fn end_client(interrupts: Interrupts) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|why| Failure::new(format!("cannot listen to Ctrl-C: {why}")))?;
    let mut ctrl_c = {
        let _inside = runtime.enter();
        listen(SignalKind::interrupt())?
    };
    thread::spawn(move || {
        runtime.block_on(async {
            while ctrl_c.recv().await.is_some() {
                if !interrupts.raise() {
                    std::process::exit(exit::INTERRUPTED.into());
                }
            }
        });
    });
    Ok(())
}

/// What the first signal does to a role.
pub(crate) enum OnSignal {
    /// It stops in good order; the words are said when the role does not say them itself.
    Stop(Option<&'static str>),
    /// The process ends as if it were killed: what is taken down in order would not go on.
    Leave(LiveCount),
}

/// For a role: SIGTERM, a lost terminal and a Ctrl-C that nobody waits for stop it; a second one
/// ends it at once.
pub(crate) fn stop_role(
    interrupts: Interrupts,
    prompt: ReplStop,
    shutdown: CancellationToken,
    on_signal: OnSignal,
) -> Result<(), Failure> {
    let mut ctrl_c = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = ctrl_c.recv() => if interrupts.raise() { continue },
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
            if shutdown.is_cancelled() {
                tracing::warn!("Ended at once; what ran is taken up again at the next start");
                std::process::exit(exit::INTERRUPTED.into());
            }
            match &on_signal {
                OnSignal::Stop(None) => {}
                OnSignal::Stop(Some(goodbye)) => tracing::info!("{goodbye}"),
                OnSignal::Leave(live_count) => {
                    tracing::info!("{}", what_goes_on(live_count.get()));
                    std::process::exit(exit::OK.into());
                }
            }
            prompt.stop();
            shutdown.cancel();
        }
    });
    Ok(())
}

fn what_goes_on(count: usize) -> String {
    let rest = match count {
        0 => String::new(),
        1 => " 1 task goes on; start the worker again to take it up".to_owned(),
        count => format!(" {count} tasks go on; start the worker again to take them up"),
    };
    format!("Shutting down worker...{rest}")
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|why| Failure::new(format!("cannot listen to signals: {why}")))
}
