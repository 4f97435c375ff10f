//! `help` at `master>`: every command, made from the grammar.

use std::fmt::Write as _;

use clap::CommandFactory;

use super::words::TASK_USAGE;
use crate::grammar::ReplLine;

/// Every command with what it does, or one with its flags.
pub(super) fn text(command: Option<&str>) -> String {
    let mut known = ReplLine::command();
    match command {
        None => list(&known),
        Some("task") => {
            format!("{TASK_USAGE}\n       task show <task>             shows one task")
        }
        Some(name) => match known.find_subcommand_mut(name) {
            Some(command) => {
                command.clone().disable_help_flag(true).render_help().ansi().to_string()
            }
            None => format!("Unknown command: {}\n{}", crate::output::harmless(name), list(&known)),
        },
    }
}

fn list(known: &clap::Command) -> String {
    let mut text = String::from("Available commands:\n");
    let mut line = |name: &str, about: &str| {
        let _ = writeln!(text, "  {name:<26} {about}");
    };
    line("task <worker> <image>", "Send a task to a worker");
    line("task <image>", "Send a task; the scheduler chooses its worker");
    for command in known.get_subcommands() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let mut name = command.get_name().to_owned();
        if name == "task" {
            name.push_str(" show <task>");
        }
        for place in command.get_positionals() {
            let value = place.get_id().as_str().replace("words", "image");
            let shown =
                if place.is_required_set() { format!(" <{value}>") } else { format!(" [{value}]") };
            name.push_str(&shown);
        }
        for alias in command.get_visible_aliases() {
            let _ = write!(name, ", {alias}");
        }
        line(&name, &about);
    }
    text.push_str("\n'help <command>' shows its flags; '--json' behind any of them gives JSON");
    text
}
