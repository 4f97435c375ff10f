//! A door between a worker and the engine: everything passes, until a call comes that a test waits
//! for. That call is held, before the engine sees it or when its answer is on the way back, so that
//! a test can kill the worker in the middle of the step.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use tempfile::TempDir;

use crate::PATIENCE;

/// Where the engine listens.
const ENGINE: &str = "/var/run/docker.sock";

/// Which call is held, and on which way.
#[derive(Debug, Clone, Copy)]
pub enum Hold {
    /// The engine does not see the first call whose head has this text in it.
    Before(&'static str),
    /// The worker does not see the answer to it.
    After(&'static str),
}

/// The door. What is held is let go, unanswered, when it is dropped.
pub struct Gate {
    state: Arc<State>,
    path: PathBuf,
    _dir: TempDir,
}

struct State {
    hold: Hold,
    at: Mutex<At>,
    changed: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Open,
    Held,
    Gone,
}

impl Gate {
    /// A door that will hold one call.
    pub fn new(hold: Hold) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let path = dir.path().join("engine.sock");
        let listener = UnixListener::bind(&path).expect("a socket can be made");
        let state = Arc::new(State { hold, at: Mutex::new(At::Open), changed: Condvar::new() });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for worker in listener.incoming().flatten() {
                if *shared.lock() == At::Gone || pass(&shared, worker).is_err() {
                    return;
                }
            }
        });
        Self { state, path, _dir: dir }
    }

    /// What to give to a worker as `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// Waits until the call is held.
    #[track_caller]
    pub fn wait_held(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut at = self.state.lock();
        while *at == At::Open {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no call to hold: {:?}", self.state.hold);
            let waited = self.state.changed.wait_timeout(at, left);
            at = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        *self.state.lock() = At::Gone;
        self.state.changed.notify_all();
        // Wakes the listener.
        drop(UnixStream::connect(&self.path));
    }
}

impl State {
    fn lock(&self) -> std::sync::MutexGuard<'_, At> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds whoever calls until the door is gone.
    fn hold(&self) {
        let mut at = self.lock();
        if *at == At::Open {
            *at = At::Held;
            self.changed.notify_all();
        }
        while *at != At::Gone {
            at = self.changed.wait(at).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Joins a worker's connection with one of the engine.
fn pass(state: &Arc<State>, worker: UnixStream) -> io::Result<()> {
    let engine = UnixStream::connect(Path::new(ENGINE))?;
    let (worker_reads, engine_reads) = (worker.try_clone()?, engine.try_clone()?);
    // Set once the call went out whose answer is held.
    let is_asked = Arc::new(Mutex::new(false));
    let (up, down) = (Arc::clone(state), Arc::clone(state));
    let asked = Arc::clone(&is_asked);
    std::thread::spawn(move || {
        copy(worker_reads, engine, |piece| {
            let seen = |text: &str| String::from_utf8_lossy(piece).contains(text);
            match up.hold {
                Hold::Before(text) if seen(text) => up.hold(),
                Hold::After(text) if seen(text) => {
                    *asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
                }
                Hold::Before(_) | Hold::After(_) => {}
            }
        })
    });
    std::thread::spawn(move || {
        copy(engine_reads, worker, |_| {
            if *is_asked.lock().unwrap_or_else(PoisonError::into_inner) {
                down.hold();
            }
        })
    });
    Ok(())
}

/// Copies until either side has ended; `look` sees each piece before it goes on.
fn copy(mut from: UnixStream, mut to: UnixStream, look: impl Fn(&[u8])) -> io::Result<()> {
    let mut piece = [0; 16 << 10];
    loop {
        match from.read(&mut piece)? {
            0 => return to.shutdown(std::net::Shutdown::Write),
            count => {
                look(&piece[..count]);
                to.write_all(&piece[..count])?;
            }
        }
    }
}
