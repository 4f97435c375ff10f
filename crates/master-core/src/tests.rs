//! The promises of the core, each by name. One harness: after each step the whole world is
//! checked, and what was sent is read as text.

mod world;

mod breaking;
mod cancel_races;
mod cancelling;
mod chaos;
mod degrading;
mod explaining;
mod fencing;
mod leasing;
mod placing;
mod reloading;
mod restoring;
mod retrying;
mod submitting;
mod trying_elsewhere;
