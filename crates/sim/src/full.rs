//! A store without room, as `go_on_without_room` of `master/src/heart/turn.rs` lives with it: the
//! sessions stay, and whoever only lives is answered. It must never store anything itself.

use cloudai_master_core::{Batch, Command, Input, WorkerHello};
use cloudai_model::Monotonic;

use crate::faults::Class;
use crate::master::{Process, Waiters};
use crate::plant::Plant;
use crate::world::{Happening, World};

/// How long a store that has no room is left alone before time and plans ask it for some again.
const FULL_PAUSE_MS: u64 = 2_000;

impl Process {
    /// Whether time and plans leave the store alone.
    pub(crate) fn is_pausing(&self, now: Monotonic) -> bool {
        self.full_until.is_some_and(|until| now < until)
    }
}

impl World {
    /// The store has no room for so long.
    pub(crate) fn fill_store(&mut self, ms: u64) {
        let until_ms = self.queue.now_ms() + ms;
        let disk = &mut self.master.disk;
        disk.full_until_ms = disk.full_until_ms.max(until_ms);
        disk.is_full = true;
        self.queue.at(until_ms, Happening::StoreHasRoom);
    }

    pub(crate) fn on_store_has_room(&mut self) {
        let now_ms = self.queue.now_ms();
        let disk = &mut self.master.disk;
        if std::mem::take(&mut disk.is_full) && now_ms < disk.full_until_ms {
            disk.is_full = true;
        }
    }

    /// Nothing of the turn was stored, and what the store holds is true. What is heard of the
    /// workers keeps their leases alive; what they had to say comes again.
    pub(crate) fn go_on_without_room(&mut self, mut waiters: Waiters) {
        self.report.count(Class::StoreFull);
        self.say(format_args!("master: the store has no room"));
        let begun = self.master_now().mono;
        if self.plant != Some(Plant::FullIgnored) && !self.reload_core() {
            return;
        }
        let now = self.master_now();
        let Some(process) = self.master.process.as_mut() else { return };
        process.full_until = Some(match process.full_until {
            None => now.mono,
            Some(until) if begun < until => until,
            Some(_) => now.mono.plus_ms(FULL_PAUSE_MS),
        });
        let mut batch = Batch::default();
        for (from, command) in std::mem::take(&mut waiters.signs_of_life) {
            batch.append(process.core.step(now, Input { from: Some(from), command }));
        }
        let events = batch.events().to_vec();
        match batch.commit(&mut self.master.disk) {
            Ok(effects) => {
                self.judge_events(&events);
                let items = self.sort_effects(effects, &mut waiters);
                self.release(items);
            }
            Err(_) => self.start_over(),
        }
        for from in waiters.answers.into_values() {
            self.answer_failure(from);
        }
        self.wake_master(self.queue.now_ms());
    }
}

/// What is left of a worker's message when nothing of it can be stored.
pub(crate) fn sign_of_life(command: &Command) -> Option<Command> {
    match command {
        Command::Report { worker, session: Some(session), sequence: sequence @ 1.., .. } => {
            let (worker, session) = (worker.clone(), Some(*session));
            let (sequence, changes, full) = (*sequence, Vec::new(), None);
            Some(Command::Report { worker, session, sequence, changes, full })
        }
        Command::Hello(hello) if hello.session.is_some() => {
            Some(Command::Hello(WorkerHello { held: None, ..hello.clone() }))
        }
        _ => None,
    }
}
