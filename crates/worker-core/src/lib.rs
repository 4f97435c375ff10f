//! The worker's ledger: which attempts this process holds, what to start, report, stop and forget.
//!
//! It does no IO, reads no clock and spawns nothing: inputs come in with the time, effects go out,
//! and the shell (`worker/src/session.rs`) carries them out. It must never start an attempt twice
//! and never let one run on when its lease has ended. Read next: `ledger.rs`.

mod lease;
mod ledger;
mod words;

pub use lease::LeaseTimes;
pub use ledger::{Ledger, LedgerConfig};
pub use words::{Effect, Input, Outgoing, RefusalReason, Restored};
