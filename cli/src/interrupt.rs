//! Ctrl-C, from the signal handler of the process to whatever waits now.
//!
//! The binary owns the signals and calls [`Interrupts::raise`]. A command that can be interrupted
//! listens while it waits; when nobody listens, the binary decides: a client ends, a master stops.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

type Listener = Box<dyn Fn() + Send>;

/// Where Ctrl-C goes. Clones are the same.
#[derive(Clone, Default)]
pub struct Interrupts {
    listener: Arc<Mutex<Option<Listener>>>,
}

impl Interrupts {
    /// Tells the listener, and whether there was one. Call it outside of a signal handler proper.
    pub fn raise(&self) -> bool {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        listener.as_ref().map(|tell| tell()).is_some()
    }

    /// Listens until the guard is dropped. `tell` must not block.
    pub fn listen(&self, tell: impl Fn() + Send + 'static) -> Listening {
        self.set(Some(Box::new(tell)));
        Listening { interrupts: self.clone() }
    }

    /// Waits for `work` on a thread of its own; `None` when Ctrl-C came first, and then the work
    /// ends by itself, unheard.
    pub fn unless_raised<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (done, answer) = sync_channel(2);
        let interrupted = done.clone();
        let _listening = self.listen(move || drop(interrupted.try_send(None)));
        std::thread::spawn(move || drop(done.send(Some(work()))));
        answer.recv().ok().flatten()
    }

    /// Waits this long; whether Ctrl-C came first.
    pub fn raised_within(&self, time: Duration) -> bool {
        let (raised, wait) = sync_channel(1);
        let _listening = self.listen(move || {
            let _ = raised.try_send(());
        });
        !matches!(wait.recv_timeout(time), Err(RecvTimeoutError::Timeout))
    }

    fn set(&self, listener: Option<Listener>) {
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = listener;
    }
}

/// Somebody listens until this is dropped.
#[must_use = "nobody listens once this is dropped"]
pub struct Listening {
    interrupts: Interrupts,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.interrupts.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_left_when_ctrl_c_comes_first() {
        let interrupts = Interrupts::default();
        assert!(!interrupts.raise(), "nobody listens yet");
        assert_eq!(interrupts.unless_raised(|| 5), Some(5));

        let (started, is_started) = sync_channel::<()>(0);
        let (never, end) = sync_channel::<()>(0);
        let other = interrupts.clone();
        let raiser = std::thread::spawn(move || {
            is_started.recv().unwrap();
            assert!(other.raise());
        });
        let answer = interrupts.unless_raised(move || {
            started.send(()).unwrap();
            end.recv().is_ok()
        });
        assert_eq!(answer, None);
        raiser.join().unwrap();
        drop(never);
        assert!(!interrupts.raise(), "nobody listens any more");
    }
}
