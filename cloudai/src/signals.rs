//! Signals, turned into words that the rest understands.

use std::thread;

use cloudai_cli::{Failure, Interrupts, ReplStop, exit};
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

/// For a role: SIGTERM, a lost terminal and a Ctrl-C that nobody waits for stop it in good order;
/// a second one ends it at once. `goodbye` is said when the role does not say it itself.
pub(crate) fn stop_role(
    interrupts: Interrupts,
    prompt: ReplStop,
    shutdown: CancellationToken,
    goodbye: Option<&'static str>,
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
            if let Some(goodbye) = goodbye {
                tracing::info!("{goodbye}");
            }
            prompt.stop();
            shutdown.cancel();
        }
    });
    Ok(())
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|why| Failure::new(format!("cannot listen to signals: {why}")))
}
