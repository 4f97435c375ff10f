//! Whether the store's disk has room, as the turns tell it. It must never ask the disk itself: only
//! what is kept or refused says that. Read next: `turn.rs`, which tells it.

use cloudai_model::Monotonic;

/// How long a store that has no room is left alone before time and plans ask it for some again.
const PAUSE_MS: u64 = 2_000;
/// How long a store is taken to be full that refused something and was asked for nothing since. It
/// may have room again, and whoever sends work only to a master that is ready must try it.
const BELIEVED_MS: u64 = 30_000;

/// What is known of the room.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Until when time and plans ask for nothing.
    paused_until: Option<Monotonic>,
    /// When something was refused last, unless something was kept since.
    refused_at: Option<Monotonic>,
}

impl Room {
    /// Whether time and plans wait.
    pub(super) fn is_paused(&self, now: Monotonic) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    /// When time and plans ask again, if they wait.
    pub(super) const fn pause_end(&self) -> Option<Monotonic> {
        self.paused_until
    }

    /// Whether the store is taken to have no room.
    pub(super) fn is_full(&self, now: Monotonic) -> bool {
        self.refused_at.is_some_and(|at| now.ms_since(at) < BELIEVED_MS)
    }

    /// A turn that began at `begun` was refused, and the store was read again until `now`. True
    /// when it was taken to have room.
    pub(super) fn refused(&mut self, begun: Monotonic, now: Monotonic) -> bool {
        let is_news = !self.is_full(begun);
        self.refused_at = Some(now);
        self.paused_until = Some(match self.paused_until {
            // The first time may be the last: it is asked again at once.
            None => now,
            // Whoever asks meanwhile does not put off time and plans.
            Some(until) if begun < until => until,
            Some(_) => now.plus_ms(PAUSE_MS),
        });
        is_news
    }

    /// A turn that began at `begun` was kept, with or without anything to keep. True when that
    /// shows that a full store has room again.
    pub(super) fn kept(&mut self, begun: Monotonic, anything: bool) -> bool {
        if !self.is_paused(begun) {
            self.paused_until = None;
        }
        anything && self.refused_at.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic(1_000 + ms)
    }

    #[test]
    fn whoever_asks_a_store_without_room_does_not_put_off_the_next_plan() {
        let mut room = Room::default();
        room.refused(at(0), at(10));
        assert_eq!(room.pause_end(), Some(at(10)), "the first time may be the last");
        assert!(!room.is_paused(at(10)));
        // Time and plans asked in vain.
        room.refused(at(10), at(20));
        let end = at(20 + PAUSE_MS);
        assert_eq!(room.pause_end(), Some(end));
        room.refused(at(30), at(40));
        assert_eq!(room.pause_end(), Some(end));
        assert!(room.is_paused(at(19 + PAUSE_MS)) && !room.is_paused(end));
    }

    #[test]
    fn only_what_is_kept_shows_that_there_is_room() {
        let mut room = Room::default();
        assert!(!room.kept(at(0), true), "it was never full");
        assert!(room.refused(at(0), at(10)));
        assert!(!room.kept(at(10), false) && room.is_full(at(10)));
        assert_eq!(room.pause_end(), None, "time goes on");
        assert!(!room.refused(at(20), at(30)), "that it is full is known");
        assert!(room.kept(at(30), true) && !room.is_full(at(30)));
        assert!(!room.kept(at(40), true));
    }

    #[test]
    fn a_store_that_was_asked_for_nothing_since_is_not_full_for_ever() {
        let mut room = Room::default();
        room.refused(at(0), at(10));
        room.kept(at(10), false);
        assert!(room.is_full(at(9 + BELIEVED_MS)));
        assert!(!room.is_full(at(10 + BELIEVED_MS)));
        assert!(room.refused(at(10 + BELIEVED_MS), at(20 + BELIEVED_MS)), "it is said again");
    }
}
