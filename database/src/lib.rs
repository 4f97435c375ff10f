//! Where CloudAI keeps what became true: one trait, an embedded SQLite file by default, a memory
//! backend for tests, and one suite that every backend passes.
//!
//! The store is synchronous and has one writer, the master's heart: [`Store`] takes batches of
//! events and gives the whole live state back after a restart. Everybody else reads through a
//! [`Reader`] and never through the writer. The store decides nothing: it must never drop, reorder
//! or repair an event; one that cannot follow from what is stored is an error. It knows nothing of
//! the wire, of HTTP or of async.
//!
//! Read next: `store.rs` (the two traits and what readers get), `transition.rs` (the life of one
//! task as one match), `turn.rs` (what a batch of events changes), `sqlite/schema.sql`.

#[cfg(test)]
mod conformance;
mod error;
mod memory;
mod page;
mod rows;
mod sqlite;
mod store;
mod transition;
mod turn;
mod view;

pub use error::StoreError;
pub use memory::MemoryStore;
pub use sqlite::{DirLock, SqliteStore, StoreCopy, copy_store};
pub use store::{
    JobPage, JobQuery, JobView, LostAttempt, PAGE_LEN_MAX, Reader, StatusCounts, Store, TaskCursor,
    TaskPage, TaskQuery,
};
