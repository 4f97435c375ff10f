//! Chores of the repository: `cargo xtask codegen` and `cargo xtask tidy`.
#![allow(clippy::print_stdout)]

mod codegen;

use std::path::Path;

use anyhow::{Context, Result};
use clap::Parser;

/// Chores of the repository.
#[derive(Parser)]
enum Chore {
    /// Generate the Rust code of the protos.
    Codegen {
        /// Write nothing; fail when the committed code is stale.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent")?;
    match Chore::parse() {
        Chore::Codegen { check } => codegen::run(root, check),
    }
}
