//! Where waiting work could run: a pure function from a [`Problem`] to a [`Plan`].
//!
//! Works by shape (equal needs and constraints), not by task, so that a million equal tasks cost
//! what one costs. It never sees the core: what it proposes is checked there like the proposal of
//! a stranger. Read next: `fit.rs` (why a shape does not fit a worker), then `policy/`.

mod fit;
pub mod policy;
mod problem;

pub use fit::{Refusal, refusal_of};
pub use policy::{Policy, PolicyKind};
pub use problem::{Demand, Offer, Plan, Problem, Shape, Share, Standing};
