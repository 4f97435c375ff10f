//! Lines from elsewhere in the process, printed above a prompt that a person types at.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};

/// Lines that may wait for the prompt; more are left out and counted.
pub(super) const LINES_MAX: usize = 1024;

/// The way in. Clones are the same. Never blocks: a log must not wait for a terminal.
#[derive(Clone, Default)]
pub struct Printer {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    sender: Mutex<Option<SyncSender<String>>>,
    left_out: AtomicU64,
}

impl Printer {
    /// Prints above the prompt. `false` when no prompt waits: the caller then writes as usual.
    pub fn print(&self, text: &str) -> bool {
        let sender = self.shared.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = sender.as_ref() else {
            return false;
        };
        let left_out = self.shared.left_out.swap(0, Ordering::Relaxed);
        let text = text.trim_end_matches('\n');
        let text = if left_out == 0 {
            text.to_owned()
        } else {
            format!("({left_out} lines left out: the terminal was too slow)\n{text}")
        };
        if let Err(TrySendError::Full(_)) = sender.try_send(text) {
            self.shared.left_out.fetch_add(left_out + 1, Ordering::Relaxed);
        }
        true
    }

    /// From now on a prompt takes lines.
    pub(super) fn attach(&self, sender: SyncSender<String>) {
        *self.shared.sender.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    }

    /// From now on no prompt takes lines.
    pub(super) fn detach(&self) {
        *self.shared.sender.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::Printer;

    #[test]
    fn a_slow_terminal_loses_lines_and_says_how_many() {
        let printer = Printer::default();
        assert!(!printer.print("nobody takes it"));
        let (sender, lines) = sync_channel(1);
        printer.attach(sender);
        assert!(printer.print("1\n") && printer.print("2") && printer.print("3"));
        assert_eq!(lines.recv().unwrap(), "1");
        printer.print("4");
        let want = "(2 lines left out: the terminal was too slow)\n4";
        assert_eq!(lines.recv().unwrap(), want);
        printer.detach();
        assert!(!printer.print("5"));
    }
}
