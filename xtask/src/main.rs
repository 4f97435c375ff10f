//! Chores of the repository: `cargo xtask codegen` and `cargo xtask tidy`.
//!
//! It may read everything and writes only generated code. No crate may depend on it. Read next:
//! `tidy.rs`, which holds the rules that the compiler and clippy cannot check.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it speaks to a person")]

mod codegen;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

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
    /// Check the rules of the house: dependency law, licences, sizes, headers, links.
    Tidy,
}

fn main() -> ExitCode {
    match run(&Chore::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: &Chore) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent")?;
    match chore {
        Chore::Codegen { check } => codegen::run(root, *check),
        Chore::Tidy => tidy::run(root),
    }
}
