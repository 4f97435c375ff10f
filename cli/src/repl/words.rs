//! How a line at `master>` is understood.
//!
//! The specification's `task` is turned into the flags of `submit`, so that one parser checks
//! every amount, whoever wrote it. Nothing here speaks to a master.

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser};

use crate::failure::Failure;
use crate::grammar::{ClientCommand, ReplCommand, ReplLine, SubmitArgs};

pub(super) const TASK_USAGE: &str = "\
Usage: task <worker> <image> [-name <name>] [-cpu_cores <cores>] [-mem <GiB>] [-storage <GiB>] \
[-gpu_cores <GPUs>] [-- <command>...]
       task <image> [the same]      the scheduler chooses the worker";

/// What a line says.
pub(super) enum Said {
    /// Nothing, or a comment.
    Nothing,
    /// A word that is no command.
    Unknown(String),
    /// A command, wrongly used; the text says how.
    Misused(String),
    /// The specification's `task`.
    Target(Box<Target>),
    /// A command of the grammar.
    Command(Box<ReplLine>),
}

/// The specification's `task`.
pub(super) struct Target {
    /// The same as a submit.
    pub(super) submit: SubmitArgs,
}

/// Understands a line.
pub(super) fn understand(line: &str) -> Result<Said, Failure> {
    let Some(words) = shlex::split(line) else {
        return Err(Failure::usage("a quote is not closed"));
    };
    let mut words = words.as_slice();
    // Whoever knows the shell's commands may type them as there.
    if words.first().is_some_and(|word| word == "cloudai") {
        words = &words[1..];
    }
    let Some(first) = words.first() else {
        return Ok(Said::Nothing);
    };
    if first == "task" && words.get(1).is_none_or(|word| word != "show") {
        return Ok(target(&words[1..]));
    }
    let first = if first == "?" { "help" } else { first };
    let known = ReplLine::command();
    if known.find_subcommand(first).is_none() {
        return Ok(Said::Unknown(crate::output::harmless(first)));
    }
    let rest = words[1..].iter().map(String::as_str);
    match ReplLine::try_parse_from(std::iter::once(first).chain(rest)) {
        Ok(line) => Ok(Said::Command(Box::new(line))),
        Err(error) => Ok(Said::Misused(error.render().ansi().to_string())),
    }
}

/// The flags of the specification, the flag of `submit` for each, and the unit that it leaves out.
const FLAGS: [(&str, &str, &str); 5] = [
    ("name", "--name", ""),
    ("cpu_cores", "--cpus", ""),
    ("mem", "--memory", "GiB"),
    ("storage", "--storage", "GiB"),
    ("gpu_cores", "--gpus", ""),
];

fn target(words: &[String]) -> Said {
    let mut places = Vec::new();
    let mut flags = Vec::new();
    let mut command = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        if word == "--" {
            command = rest.by_ref().cloned().collect();
        } else if let Some(flag) = word.strip_prefix('-') {
            let flag = flag.trim_start_matches('-');
            let (flag, given) = match flag.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (flag, None),
            };
            let Some((_, long, unit)) = FLAGS.iter().find(|(name, ..)| *name == flag) else {
                return Said::Misused(format!("Unknown flag: {word}\n{TASK_USAGE}"));
            };
            let Some(value) = given.or_else(|| rest.next().cloned()) else {
                return Said::Misused(format!("{word} needs a value\n{TASK_USAGE}"));
            };
            // GPUs of 0 are the specification's way to want none.
            if !(flag == "gpu_cores" && value.parse() == Ok(0.0)) {
                flags.push(format!("{long}={}", with_unit(&value, unit)));
            }
        } else {
            places.push(word.clone());
        }
    }
    let (worker, image) = match places.as_slice() {
        [image] => (None, image.clone()),
        [worker, image] => (Some(worker.clone()), image.clone()),
        _ => return Said::Misused(TASK_USAGE.to_owned()),
    };
    let mut arguments = flags;
    arguments.extend(worker.map(|worker| format!("--worker={worker}")));
    arguments.push("--".to_owned());
    arguments.push(image);
    arguments.extend(command);
    submit(arguments)
}

/// `1.5` becomes `1.5GiB`; whoever writes a unit means it.
fn with_unit(value: &str, unit: &str) -> String {
    let plain = value.parse::<f64>().is_ok_and(f64::is_finite);
    if plain { format!("{value}{unit}") } else { value.to_owned() }
}

fn submit(arguments: Vec<String>) -> Said {
    let words = std::iter::once("submit".to_owned()).chain(arguments);
    let parsed = ReplLine::command()
        .try_get_matches_from(words)
        .and_then(|matches| ReplLine::from_arg_matches(&matches));
    match parsed.map(|line| line.command) {
        Ok(ReplCommand::Client(ClientCommand::Submit(submit))) => {
            Said::Target(Box::new(Target { submit }))
        }
        Ok(_) => Said::Misused(TASK_USAGE.to_owned()),
        Err(error) if error.kind() == ErrorKind::ValueValidation => {
            // In the words that were typed, not in those of `submit`.
            let text = error.to_string();
            let mut line = text.lines().next().unwrap_or_default().to_owned();
            for (name, long, _) in FLAGS {
                line = line.replace(long, &format!("-{name}"));
            }
            Said::Misused(line)
        }
        Err(error) => Said::Misused(error.to_string()),
    }
}
