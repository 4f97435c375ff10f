//! `cloudai-sim`: runs seeds until one fails. Arguments and words for people; no run knows of it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it speaks to a person")]

use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use cloudai_sim::{Plant, find_planted, run_many, shrink};

struct Wish {
    seed: Option<u64>,
    runs: u64,
    threads: usize,
    plant: Option<Plant>,
    /// Whether every planted bug is to be found.
    planted: bool,
}

fn read_arguments() -> Result<Wish, lexopt::Error> {
    use lexopt::prelude::{Long, ValueExt};
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut wish = Wish { seed: None, runs: 1_000, threads, plant: None, planted: false };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("seed") => {
                let seed = number(&mut parser, "seed", 0);
                wish.seed = Some(seed.map_err(|error| format!("{error}, as a run printed it"))?);
            }
            Long("runs") => wish.runs = number(&mut parser, "runs", 1)?,
            Long("threads") => {
                wish.threads = usize::try_from(number(&mut parser, "threads", 1)?)
                    .map_err(|_| "so many threads there are not")?;
            }
            Long("plant") => {
                let name = parser.value()?.string()?;
                let plant = Plant::find(&name);
                let known = || Plant::ALL.map(Plant::name).join(", ");
                let missing = || format!("there is no plant '{name}': give one of {}", known());
                wish.plant = Some(plant.ok_or_else(missing)?);
            }
            Long("planted") => wish.planted = true,
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(wish)
}

/// The value of a flag, which is at least this.
fn number(parser: &mut lexopt::Parser, flag: &str, least: u64) -> Result<u64, lexopt::Error> {
    let text = parser.value()?.to_string_lossy().into_owned();
    let value = text.parse().ok().filter(|value| *value >= least);
    let error = || format!("--{flag} {text}: give a whole number, {least} or more").into();
    value.ok_or_else(error)
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
    let succeeds = if wish.planted { find_all_planted(seed, &wish) } else { simulate(seed, &wish) };
    if succeeds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the seeds; false when one of them fails.
fn simulate(seed: u64, wish: &Wish) -> bool {
    let began = Instant::now();
    let sum = run_many(seed, wish.runs, wish.threads, wish.plant);
    let seconds = began.elapsed().as_secs_f64();
    print!("{sum}");
    println!("{seconds:.1} s, {:.1} runs/s on {} threads", sum.runs as f64 / seconds, wish.threads);
    let Some(failure) = sum.failure else {
        println!("no failure");
        return true;
    };
    println!("FAILED: seed {}: {}", failure.seed, failure.why);
    println!("repeat: make sim SEED={} RUNS=1", failure.seed);
    match shrink(failure.seed, wish.plant) {
        Some(shortest) => {
            println!("the shortest history that was found:");
            for line in shortest.history {
                println!("{line}");
            }
        }
        None => println!("alone, it does not fail"),
    }
    false
}

/// Plants one bug after the other; false when one of them is not found within the seeds.
fn find_all_planted(seed: u64, wish: &Wish) -> bool {
    let mut all = true;
    for plant in Plant::ALL {
        let found = find_planted(plant, seed, wish.runs, wish.threads);
        all &= found.is_ok();
        let words = found.map_or_else(
            |why| why,
            |failure| {
                let count = failure.seed.wrapping_sub(seed) + 1;
                format!("found by seed {count}: {}", failure.why)
            },
        );
        println!("{:<24}{words}", plant.name());
    }
    all
}
