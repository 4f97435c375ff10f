//! One file a command: all its consequences on one screen.

mod cancel;
mod finish;
mod hello;
mod place;
mod report;
mod submit;
mod tick;

pub(crate) use cancel::cancel;
pub(crate) use hello::{goodbye, held_by, hello};
pub(crate) use place::{apply_plan, propose};
#[cfg(test)]
pub(crate) use report::is_current;
pub(crate) use report::{Report, declined, report};
pub(crate) use submit::submit;
pub(crate) use tick::tick;
