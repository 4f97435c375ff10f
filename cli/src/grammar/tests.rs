//! What is understood, and what the help says.

use clap::{CommandFactory, Parser};

use super::{Cli, ClientCommand, Command, ReplLine, SubmitArgs};
use crate::failure::Failure;

fn submit(line: &str) -> Result<SubmitArgs, clap::Error> {
    let words = shlex::split(line).unwrap();
    match Cli::try_parse_from(words)?.command {
        Command::Client(ClientCommand::Run { submit, .. } | ClientCommand::Submit(submit)) => {
            Ok(submit)
        }
        other => panic!("{other:?} is no submit"),
    }
}

fn request(line: &str) -> Result<String, Failure> {
    let request = submit(line).unwrap().to_request(None)?;
    Ok(serde_json::to_string(&request).unwrap())
}

fn help(words: &[&str]) -> String {
    let error = Cli::command().term_width(100).try_get_matches_from(words).unwrap_err();
    error.render().to_string()
}

#[test]
fn the_grammars_are_sound() {
    Cli::command().debug_assert();
    ReplLine::command().debug_assert();
}

#[test]
fn everything_behind_the_image_belongs_to_the_command() {
    let line = "cloudai run --name x busybox ls --name y -- -l";
    insta::assert_snapshot!(request(line).unwrap(), @r#"{"image":"busybox","command":["ls","--name","y","--","-l"],"name":"x"}"#);
    assert!(submit("cloudai run --nome x busybox").is_err(), "an unknown flag is no image");
}

#[test]
fn every_flag_reaches_the_request() {
    let line = "cloudai submit -e A=1 -e B=x=y --cpus 1.5 -m 2GiB --storage 10GB --gpus 1 \
                --pids-limit 64 --timeout 5m --grace 3s --lease 1m --retries 2 --crashes-max 0 --network none \
                -v data:/data:ro --pull always --worker w1 --user ada --task-type cpu-heavy \
                --sla 1.5 --array 1-9%3 --request-id r1 -c 'date; ls' busybox";
    insta::assert_snapshot!(request(line).unwrap(), @r#"{"request_id":"r1","image":"busybox","shell":"date; ls","env":{"A":"1","B":"x=y"},"cpus":1.5,"memory_bytes":2147483648,"storage_bytes":10000000000,"gpus":1.0,"pids":64,"timeout_ms":300000,"grace_ms":3000,"lease_ms":60000,"retries":2,"crashes_max":0,"network":"none","volumes":[{"volume":"data","target":"/data","read_only":true}],"pull":"always","worker":"w1","user":"ada","task_type":"cpu-heavy","sla_multiplier":1.5,"array":{"first":1,"last":9,"at_once":3}}"#);
}

#[test]
fn a_shell_text_and_a_command_contradict_each_other() {
    let failure = request("cloudai run -c date busybox ls").unwrap_err();
    assert_eq!(failure.exit, crate::exit::USAGE);
    insta::assert_snapshot!(failure.message, @"both --shell and a command (ls) are given");
}

#[test]
fn an_amount_that_makes_no_sense_names_its_flag() {
    let lines = [
        "--cpus 0",
        "--cpus NaN",
        "--cpus -1",
        "-m 2",
        "-m -2GiB",
        "--gpus all",
        "--timeout 90",
        "--grace -5s",
        "--lease -1s",
        "--retries -1",
        "--crashes-max x",
        "--pids-limit 0",
        "--array 5-1",
        "-v /etc:/etc",
        "--network host",
    ];
    let errors: Vec<String> = lines
        .map(|flags| submit(&format!("cloudai run {flags} busybox")).unwrap_err().to_string())
        .iter()
        .map(|error| error.lines().next().unwrap_or_default().to_owned())
        .collect();
    insta::assert_snapshot!(errors.join("\n"), @r"
    error: invalid value '0' for '--cpus <N>': must be more than 0 (at least 0.001)
    error: invalid value 'NaN' for '--cpus <N>': 'NaN' is not a number, for example 2 or 1.5
    error: invalid value '-1' for '--cpus <N>': -1 is negative: it must be more than 0
    error: invalid value '2' for '--memory <SIZE>': 2 of what? Give a unit, for example 2GiB or 512MiB
    error: invalid value '-2GiB' for '--memory <SIZE>': -2 is negative: it must be more than 0
    error: invalid value 'all' for '--gpus <N>': 'all' is not taken: say how many, so that they can be placed
    error: invalid value '90' for '--timeout <TIME>': 90 of what? Give a unit, for example 90s or 5m
    error: invalid value '-5s' for '--grace <TIME>': -5 is negative: it must be more than 0
    error: invalid value '-1s' for '--lease <TIME>': -1 is negative: it must be more than 0
    error: invalid value '-1' for '--retries <N>': must be a whole number, 0 or more
    error: invalid value 'x' for '--crashes-max <N>': must be a whole number, 0 or more
    error: invalid value '0' for '--pids-limit <N>': 0 is not in 1..=4294967295
    error: invalid value '5-1' for '--array <FIRST-LAST[%MAX]>': 5-1 is empty: the first index is above the last
    error: invalid value '/etc:/etc' for '--volume <NAME:/PATH[:ro]>': '/etc' is a path: a path of the worker is never taken; its administrator declares volumes by name with 'cloudai worker --volume name=/path'
    error: invalid value 'host' for '--network <NETWORK>'
    ");
}

#[test]
fn the_help_of_run_shows_how_to_use_it() {
    insta::assert_snapshot!(help(&["cloudai", "run", "-h"]), @r#"
    Run a task: submit it, show its output, end with its exit code

    Usage: cloudai run [OPTIONS] IMAGE [COMMAND]...

    Arguments:
      <IMAGE [COMMAND]>...  The image, and then what runs in it: everything behind the image belongs to
                            the command

    Options:
      -d, --detach                    Do not wait: print the task's id, as 'submit' does
      -c, --shell <TEXT>              Run this text with /bin/sh -c instead of a command
          --name <NAME>               A name for people; need not be unique
      -e, --env <KEY=VALUE>           Set an environment variable; KEY alone takes the value from here
          --network <NETWORK>         The container's network [default: default] [possible values:
                                      default, none]
      -v, --volume <NAME:/PATH[:ro]>  Mount a volume that the worker's administrator declared; never a
                                      path
          --pull <WHEN>               When the image is fetched [default: missing] [possible values:
                                      missing, always, never]
          --array <FIRST-LAST[%MAX]>  Many tasks with an index each, at most so many at once: 1-100%5
          --user <NAME>               Who submits [default: the user of this shell]
          --task-type <TYPE>          The kind of work [default: inferred] [possible values: cpu-light,
                                      cpu-heavy, memory-heavy, gpu-inference, gpu-training, mixed]
          --sla <K>                   k of "deadline = submitted + k x expected run time", 1.5 to 2.5
                                      [default: 2.0]
          --request-id <ID>           Name this submit: the same id again gives the same job
      -h, --help                      Print help (see more with '--help')
      -V, --version                   Print version

    Needs:
          --cpus <N>        Cores, for example 1.5 [default: 1]
      -m, --memory <SIZE>   Memory with its unit, for example 2GiB [default: 512MiB]
          --storage <SIZE>  Storage with its unit, for example 10GiB [default: 1GiB]
          --gpus <N>        GPUs [default: none]
          --worker <ID>     Run on this worker and no other

    Limits:
          --pids-limit <N>   Most processes in the container [default: 4096]
          --timeout <TIME>   Stop an attempt that runs longer, for example 90s, 5m or 2h
          --grace <TIME>     Time between SIGTERM and SIGKILL [default: 10s]
          --lease <TIME>     How long an attempt goes on without word from the master; 15s to 7d
                             [default: 30s]
          --retries <N>      Try a task that failed by itself so many times again [default: 0]
          --crashes-max <N>  Try a task whose worker was lost under it so many times again [default: 5]

    Global options:
          --master-url <URL>  The master to speak to [default: http://127.0.0.1:8080] [env: CLOUDAI_URL]
          --json              Write data as JSON, as the API has it
          --config <FILE>     Read settings from this file [default: ./cloudai.toml, else
                              /etc/cloudai/cloudai.toml] [env: CLOUDAI_CONFIG]

    Examples:
      cloudai run busybox echo hello
      cloudai run --cpus 2 -m 4GiB -e MODE=fast --timeout 10m python:3-slim python -c 'print(1)'
      cloudai run -c 'date; sleep 5; date' busybox

    Ends with the exit code of the task. Ctrl-C asks whether to leave the task running or to cancel
    it; a second Ctrl-C leaves it running.
    "#);
}

#[test]
fn the_help_of_all_names_every_command_and_every_exit_code() {
    insta::assert_snapshot!(help(&["cloudai", "--help"]), @r"
    Runs containers as tasks on many machines.

    One program is the master, the worker and the client. Submit a container image, and it runs on a
    worker that has room for it; its output, files and exit code come back.

    Usage: cloudai [OPTIONS] <COMMAND>

    Commands:
      up           Start a master and a worker on this machine
      master       Start a master
      worker       Start a worker
      run          Run a task: submit it, show its output, end with its exit code
      submit       Submit a task or an array of tasks and print its id
      tasks        List tasks, the newest first [alias: ps]
      logs         Show what a task wrote
      cancel       Cancel tasks or jobs
      wait         Wait until tasks or jobs have ended
      explain      Say why a task is where it is
      files        List the files that a task left in /output, or fetch one
      workers      Show the workers, or one with what it runs
      queue        Show what waits and why
      status       Show the cluster at a glance
      task         Show one task with everything that is known of it
      backup       Copy a master's data, also while it runs
      restore      Make a data directory from a backup
      doctor       Look for what keeps CloudAI from working on this machine
      config       Show each setting with its value and where it comes from
      completions  Write a completion script for a shell to standard output
      man          Write the manual pages into a directory, or the main one to standard output
      help         Print this message or the help of the given subcommand(s)

    Options:
      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Global options:
          --master-url <URL>
              The master to speak to [default: http://127.0.0.1:8080] [env: CLOUDAI_URL]

          --json
              Write data as JSON, as the API has it

          --config <FILE>
              Read settings from this file [default: ./cloudai.toml, else /etc/cloudai/cloudai.toml]
              [env: CLOUDAI_CONFIG]

    Examples:
      cloudai up                                  a master and a worker on this machine
      cloudai run busybox echo hello              run a task, see its output, get its exit code
      cloudai submit --array 1-100%5 busybox      a hundred tasks, five at once
      cloudai tasks --status running              what runs now
      cloudai explain 42                          why task-42 does not run

    Settings come from a flag, else the environment (CLOUDAI_*), else cloudai.toml, else a default;
    'cloudai config' shows each with its origin.

    Exit codes:
      0    done; for run and wait: the task succeeded
      1    the answer is no: doctor found a problem, tasks of an array failed
      2    the command line makes no sense; nothing was done
      124  run, wait: out of time
      125  CloudAI could not do it: no master, refused, image, engine or worker lost
      130  Ctrl-C
      137  run, wait: the task used more memory than it asked for
      143  run, wait: the task was cancelled
      else run, wait: the exit code of the task's process
    ");
}
