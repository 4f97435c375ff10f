//! What shells and manual readers get from the one grammar.

use std::io::Write;
use std::path::Path;

use clap::CommandFactory;

use super::DONE;
use crate::failure::Failure;
use crate::grammar::Cli;
use crate::output::Screen;

/// Writes the completion script of a shell.
pub fn write_completions(shell: clap_complete::Shell, screen: &mut Screen) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cloudai", &mut script);
    screen.out.write_all(&script)?;
    screen.out.flush()?;
    DONE
}

/// Writes a page for each command into `dir`, or the main page to the screen.
pub fn write_manual(dir: Option<&Path>, screen: &mut Screen) -> Result<u8, Failure> {
    let command = Cli::command();
    let Some(dir) = dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        screen.out.write_all(&page)?;
        return DONE;
    };
    let error =
        |why| Failure::new(format!("cannot write the manual pages to {}: {why}", dir.display()));
    std::fs::create_dir_all(dir).map_err(error)?;
    clap_mangen::generate_to(command, dir).map_err(error)?;
    screen.message(format!("Manual pages are in {}", dir.display()));
    DONE
}
