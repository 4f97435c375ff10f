//! `cloudai-sim`: runs seeds until one fails. Arguments and words for people; no run knows of it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it speaks to a person")]

use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use cloudai_sim::{Plant, check_seed, run_many};

struct Wish {
    seed: Option<u64>,
    runs: u64,
    threads: usize,
    plant: Option<Plant>,
}

fn read_arguments() -> Result<Wish, lexopt::Error> {
    use lexopt::prelude::{Long, ValueExt};
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut wish = Wish { seed: None, runs: 1_000, threads, plant: None };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("seed") => wish.seed = Some(parser.value()?.parse()?),
            Long("runs") => wish.runs = parser.value()?.parse()?,
            Long("threads") => wish.threads = parser.value()?.parse()?,
            Long("plant") => {
                let name = parser.value()?.string()?;
                let plant = Plant::find(&name);
                wish.plant = Some(plant.ok_or_else(|| format!("there is no plant '{name}'"))?);
            }
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(wish)
}

fn main() -> ExitCode {
    let wish = match read_arguments() {
        Ok(wish) => wish,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    std::panic::set_hook(Box::new(|_| {}));
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seed = wish.seed.unwrap_or(clock * 1_000_000);
    println!("seed {seed}");
    let began = Instant::now();
    let sum = run_many(seed, wish.runs, wish.threads, wish.plant);
    let seconds = began.elapsed().as_secs_f64();
    print!("{sum}");
    println!("{:.1} s, {:.1} runs/s", seconds, sum.runs as f64 / seconds);
    let Some(failure) = sum.failure else {
        println!("no failure");
        return ExitCode::SUCCESS;
    };
    println!("FAILED: seed {}: {}", failure.seed, failure.why);
    if let Err(failure) = check_seed(failure.seed, wish.plant) {
        for line in failure.history {
            println!("{line}");
        }
    }
    ExitCode::FAILURE
}
