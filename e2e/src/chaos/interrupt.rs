//! Ctrl-C at a run that lasts for minutes: it ends at once, and takes with it what it started. It
//! must never end the program by itself: a test that is unwound leaves nothing behind.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

static RAISED: AtomicBool = AtomicBool::new(false);
static LISTENING: Once = Once::new();

/// Listens from now on, in a thread of its own.
pub(super) fn listen() {
    LISTENING.call_once(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        thread::spawn(move || {
            if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
                say();
                RAISED.store(true, Ordering::Relaxed);
            }
        });
    });
}

#[expect(clippy::print_stderr, reason = "whoever pressed it waits for a sign")]
fn say() {
    eprintln!("chaos: interrupted; every process and container of it is ended now");
}

/// Whether somebody pressed it.
pub(super) fn is_raised() -> bool {
    RAISED.load(Ordering::Relaxed)
}
