//! The log of a role, for people, on the standard error; above the prompt while one waits.

use std::io::{self, IsTerminal, Write};

use cloudai_cli::{Failure, Printer};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Crates below ours that say more than anyone asked for at the same level.
const QUIET: &str = "h2=warn,hyper=warn,hyper_util=warn,tonic=warn,tower=warn,bollard=warn";

/// Starts the log. `level` is a level, or a filter as `RUST_LOG` has it.
pub(crate) fn start(level: &str, printer: &Printer) -> Result<(), Failure> {
    let plain = ["error", "warn", "info", "debug", "trace"].contains(&level);
    let directives = if plain { format!("{level},{QUIET}") } else { level.to_owned() };
    let filter = EnvFilter::try_new(directives).map_err(|why| {
        Failure::usage(format!("'{level}' is no log level: {why}"))
            .hint("use error, warn, info, debug or trace")
    })?;
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(colour)
        .with_writer(Writer { printer: printer.clone() })
        .try_init()
        .map_err(|why| Failure::new(format!("cannot start the log: {why}")))
}

/// Goes to the prompt that waits, else to the standard error.
#[derive(Clone)]
struct Writer {
    printer: Printer,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.printer.print(&String::from_utf8_lossy(bytes)) {
            return Ok(bytes.len());
        }
        io::stderr().write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
