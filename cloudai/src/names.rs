//! The names that the binary answers to: `cloudai`, and as links `master-node` and `worker-node`,
//! which take the specification's flags with one dash.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The arguments as the grammar has them.
pub(crate) fn arguments(given: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut given = given.into_iter();
    let name = given.next().unwrap_or_else(|| "cloudai".into());
    let role = match Path::new(&name).file_name().and_then(OsStr::to_str) {
        Some("master-node") => "master",
        Some("worker-node") => "worker",
        _ => return std::iter::once(name).chain(given).collect(),
    };
    let role: [OsString; 2] = ["cloudai".into(), role.into()];
    role.into_iter().chain(given.map(two_dashes)).collect()
}

/// `-id` becomes `--id`. A single letter and a number stay what they are.
fn two_dashes(word: OsString) -> OsString {
    let Some(text) = word.to_str() else { return word };
    let long = text.strip_prefix('-').is_some_and(|flag| {
        flag.len() > 1 && flag.starts_with(|first: char| first.is_ascii_alphabetic())
    });
    if long { format!("-{text}").into() } else { word }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use cloudai_cli::grammar::{Cli, Command};

    use super::*;

    fn parse(line: &str) -> Command {
        let words = arguments(line.split(' ').map(OsString::from));
        Cli::try_parse_from(words).unwrap().command
    }

    #[test]
    fn a_link_takes_the_flags_of_the_specification() {
        for line in [
            "/usr/bin/worker-node -id worker-2 -ip localhost -master localhost:50051 -port :50053",
            "worker-node --id=worker-2 -ip=localhost -master=localhost:50051 -port=50053",
            "cloudai worker --id worker-2 --ip localhost --master localhost:50051 --port 50053",
        ] {
            let Command::Worker(args) = parse(line) else { panic!("{line} is no worker") };
            assert_eq!(args.id.as_deref(), Some("worker-2"), "{line}");
            assert_eq!(args.ip.as_deref(), Some("localhost"), "{line}");
            assert_eq!(args.master.as_deref(), Some("localhost:50051"), "{line}");
            assert_eq!(args.port, Some(50053), "{line}");
        }
        let Command::Master(args) = parse("master-node -port :50099") else { panic!() };
        assert_eq!(args.grpc_port, Some(50099));
    }

    #[test]
    fn other_words_stay_what_they_are() {
        let words = ["cloudai", "run", "-name", "x"].map(OsString::from);
        assert_eq!(arguments(words.clone()), words);
        for word in ["-v", "-5", "--id", "id", "-", "--"] {
            assert_eq!(two_dashes(word.into()), word);
        }
    }
}
