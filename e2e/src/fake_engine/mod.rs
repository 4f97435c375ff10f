//! A Docker engine that misbehaves when it is told to: an HTTP server on a Unix socket that speaks
//! the part of API 1.41 that a worker uses, with containers that live in its memory. It stands in
//! for dockerd, never for code of ours: the worker that talks to it is the real binary.
//!
//! A container's command says what it does (`container.rs`), `fault.rs` says what goes wrong with
//! which call, and `journal.rs` is what a test judges by. It must never be right by accident: what
//! a worker does not use is answered with 404.

mod container;
mod fault;
mod journal;
mod server;
mod stream;
mod world;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::runtime::Runtime;

pub use self::fault::{Call, Fault};
pub use self::journal::{Asked, Journal};
use self::server::Doors;
use self::world::{LABEL_ATTEMPT, World};
use crate::{PATIENCE, until};

/// An image that the engine has.
pub const FAKE_IMAGE: &str = "fake/task";

/// How the pull of an image goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pull {
    /// It comes at once.
    Works,
    /// Nothing comes, until it is told otherwise.
    Hangs,
    /// A byte now and then.
    Trickles,
    /// The engine says these words.
    Fails(String),
}

/// What an engine that stops does with its containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Containers {
    /// They run on ("live-restore").
    RunOn,
    /// They end with it, and nobody is told.
    End,
    /// They are stopped first, as by `systemctl stop docker`: no new connection is taken, those
    /// that wait for a container are told of its end, and only then the engine goes away.
    EndFirst,
}

/// The engine. It is gone when this is dropped.
pub struct FakeEngine {
    world: Arc<World>,
    socket: PathBuf,
    doors: Doors,
    // Last: its end waits for nothing.
    runtime: Option<Runtime>,
}

impl FakeEngine {
    /// An engine that serves on a socket in `dir`, and has [`FAKE_IMAGE`].
    pub fn start(dir: &Path) -> Self {
        let mut engine = Self::prepare(dir);
        engine.serve();
        engine
    }

    /// An engine that does not serve yet.
    pub fn prepare(dir: &Path) -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build();
        let world = World::new();
        world.change(|state| state.images.insert(FAKE_IMAGE.to_owned()));
        Self {
            world,
            socket: dir.join("engine.sock"),
            doors: Doors::default(),
            runtime: Some(runtime.expect("a thread can be started")),
        }
    }

    /// Serves; again after [`stop`](Self::stop), with the containers that there are, and without
    /// the events of the time before.
    pub fn serve(&mut self) {
        let runtime = self.runtime.as_ref().expect("it is there until the drop");
        let _inside = runtime.enter();
        // The socket of the time before.
        drop(std::fs::remove_file(&self.socket));
        let listener = UnixListener::bind(&self.socket).expect("a socket can be made");
        self.doors = Doors::default();
        self.world.change(|state| state.events.clear());
        runtime.spawn(server::serve(Arc::clone(&self.world), listener, self.doors.clone()));
    }

    /// Stops serving: every connection is closed, and no new one is taken.
    pub fn stop(&self, containers: Containers) {
        drop(std::fs::remove_file(&self.socket));
        if containers == Containers::EndFirst {
            self.doors.shut.cancel();
            self.world.change(|state| state.stop_all(""));
            let told =
                async { tokio::time::timeout(PATIENCE, self.doors.connections.wait()).await };
            let runtime = self.runtime.as_ref().expect("it is there until the drop");
            runtime.block_on(told).expect("what waits for a container is told of its end");
        }
        self.doors.gone.cancel();
        if containers == Containers::End {
            self.world.change(world::State::end_all);
        }
    }

    /// The address, as `DOCKER_HOST` has it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// From now on, each such call for a container or image with `part` in its name goes wrong.
    pub fn always(&self, call: Call, part: &str, fault: Fault) {
        self.world.change(|state| state.faults.add(call, part, fault, None));
    }

    /// The next such call for a container or image with `part` in its name goes wrong.
    pub fn once(&self, call: Call, part: &str, fault: Fault) {
        self.world.change(|state| state.faults.add(call, part, fault, Some(1)));
    }

    /// From now on, of 1000 calls so many go wrong, by a seed.
    pub fn by_chance(&self, seed: u64, per_mille: u64) {
        self.world.change(|state| state.faults.add_chance(seed, per_mille));
    }

    /// From now on, every container ends with this code as soon as it starts, as on a machine
    /// whose driver or disk is broken.
    pub fn doom(&self, exit_code: i32) {
        self.world.change(|state| state.doom = Some(exit_code));
    }

    /// Nothing goes wrong any more; the connection of what hangs is closed.
    pub fn heal(&self) {
        self.world.change(|state| {
            state.faults.clear();
            state.doom = None;
            state.heals += 1;
        });
    }

    /// Stops the engine in its tracks, as SIGSTOP does: connections are taken, nothing moves.
    /// Containers run on.
    pub fn freeze(&self) {
        self.world.change(|state| state.frozen = true);
    }

    /// The end of [`freeze`](Self::freeze): everything goes on where it was.
    pub fn thaw(&self) {
        self.world.change(|state| state.frozen = false);
    }

    /// Says how the pull of an image goes, also one that is under way.
    pub fn set_pull(&self, image: &str, pull: Pull) {
        self.world.change(|state| state.pulls.insert(image.to_owned(), pull));
    }

    /// How many pulls of an image are under way.
    pub fn pulling(&self, image: &str) -> u32 {
        self.world.look(|state| state.pulling.get(image).copied().unwrap_or(0))
    }

    /// Lets calls that are held go on, now and later.
    pub fn let_go(&self, call: Call) {
        self.world.change(|state| state.let_go.push(call));
    }

    /// Lets containers with `part` in their name go on behind `hold`, now and later.
    pub fn release(&self, part: &str) {
        self.world.change(|state| state.released.push(part.to_owned()));
    }

    /// Lets containers that nothing kills die of the next SIGKILL.
    pub fn let_die(&self, part: &str) {
        self.world.change(|state| {
            let containers = state.containers.values_mut();
            containers.filter(|c| c.name.contains(part)).for_each(container::Container::let_die);
        });
    }

    /// Stops a container by hand, as `docker stop` does.
    pub fn stop_by_hand(&self, part: &str) {
        self.world.change(|state| state.stop_all(part));
    }

    /// Takes a container away by hand, running or not.
    pub fn take_away(&self, part: &str) {
        self.world.change(|state| state.containers.retain(|_, c| !c.name.contains(part)));
    }

    /// The attempts that have a container, running or not.
    pub fn containers(&self) -> Vec<String> {
        let label = |c: &container::Container| c.label(LABEL_ATTEMPT).to_owned();
        self.world.look(|state| state.containers.values().map(label).collect())
    }

    /// The attempts whose container runs.
    pub fn running(&self) -> Vec<String> {
        self.world.look(|state| {
            let running = state.containers.values().filter(|container| container.is_running());
            running.map(|container| container.label(LABEL_ATTEMPT).to_owned()).collect()
        })
    }

    /// Everything that happened until now.
    pub fn journal(&self) -> Journal {
        self.world.look(|state| state.journal.clone())
    }

    /// Waits until the journal shows something.
    #[track_caller]
    pub fn wait_journal(&self, what: &str, is_there: impl Fn(&Journal) -> bool) {
        until(what, || self.world.look(|state| is_there(&state.journal)).then_some(()));
    }

    /// Waits until a container of an attempt with `part` in its name runs.
    #[track_caller]
    pub fn wait_running(&self, part: &str) {
        until(&format!("a container of {part} runs"), || {
            self.running().iter().any(|attempt| attempt.contains(part)).then_some(())
        });
    }

    /// Waits until no container is left.
    #[track_caller]
    pub fn wait_empty(&self) {
        until(&format!("no container is left of {:?}", self.containers()), || {
            self.containers().is_empty().then_some(())
        });
    }
}

impl Drop for FakeEngine {
    fn drop(&mut self) {
        self.doors.gone.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
