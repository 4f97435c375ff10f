//! A container that lives in memory. What it does is said by its command, in small words, so that
//! a test needs no other way into it than a submit: `say hello sleep 100 exit 3`.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

/// Exit codes of a process that a signal ended.
pub(super) const KILLED: i32 = 137;
const TERMINATED: i32 = 143;

/// One word of a program with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// `say TEXT`, `err TEXT`: a line on stdout or stderr.
    Say { stderr: bool, text: String },
    /// `sleep MS`.
    Sleep(Duration),
    /// `hold`: until the test lets it go on.
    Hold,
}

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Program {
    pub(super) steps: Vec<Step>,
    /// `exit CODE`; 0 when nothing is said.
    pub(super) exit_code: i32,
    /// `term CODE`: how it ends at SIGTERM; without it, as everything does that handles none.
    term_code: Option<i32>,
    /// `deaf`: SIGTERM changes nothing.
    deaf: bool,
    /// `undead`: SIGKILL changes nothing either, until the test lets it die.
    undead: bool,
    /// `file NAME TEXT`: in `/output`, when it ends.
    pub(super) files: Vec<(String, String)>,
}

impl Program {
    /// One that does nothing else.
    pub(super) fn that_exits(exit_code: i32) -> Self {
        Self { exit_code, ..Self::default() }
    }

    /// Reads the words; the error is the word that means nothing.
    pub(super) fn parse(words: &[String]) -> Result<Self, String> {
        let mut program = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut text = || words.next().cloned().ok_or_else(|| format!("'{word}' wants more"));
            let number =
                |text: String| text.parse::<u16>().map_err(|_| format!("'{text}' is no number"));
            match word.as_str() {
                "say" | "err" => {
                    let stderr = word == "err";
                    program.steps.push(Step::Say { stderr, text: format!("{}\n", text()?) });
                }
                "sleep" => {
                    let pause = Duration::from_millis(number(text()?)?.into());
                    program.steps.push(Step::Sleep(pause));
                }
                "hold" => program.steps.push(Step::Hold),
                "term" => program.term_code = Some(number(text()?)?.into()),
                "deaf" => program.deaf = true,
                "undead" => program.undead = true,
                "file" => program.files.push((text()?, text()?)),
                "exit" => program.exit_code = number(text()?)?.into(),
                other => return Err(format!("'{other}' is no word of a program")),
            }
        }
        Ok(program)
    }
}

/// Where a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Created,
    Running { since: Timestamp },
    Exited { since: Timestamp, at: Timestamp, code: i32 },
}

/// A container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) labels: Value,
    pub(super) image: String,
    pub(super) words: Vec<String>,
    pub(super) program: Program,
    pub(super) stage: Stage,
    /// Its output as the engine frames it: with a header of 8 bytes for each piece.
    pub(super) log: Vec<u8>,
}

impl Container {
    pub(super) fn new(id: String, name: String, body: &Value) -> Self {
        let words = body["Cmd"].as_array().into_iter().flatten();
        let words = words.filter_map(|word| word.as_str().map(str::to_owned)).collect::<Vec<_>>();
        Self {
            id,
            name,
            labels: body["Labels"].clone(),
            image: body["Image"].as_str().unwrap_or_default().to_owned(),
            program: Program::default(),
            words,
            stage: Stage::Created,
            log: Vec::new(),
        }
    }

    pub(super) const fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running { .. })
    }

    /// Whether its output may still grow.
    pub(super) const fn may_still_write(&self) -> bool {
        !matches!(self.stage, Stage::Exited { .. })
    }

    pub(super) fn label(&self, key: &str) -> &str {
        self.labels[key].as_str().unwrap_or_default()
    }

    /// Writes a piece of output.
    pub(super) fn write(&mut self, stderr: bool, text: &str) {
        self.log.extend([1 + u8::from(stderr), 0, 0, 0]);
        self.log.extend((text.len() as u32).to_be_bytes());
        self.log.extend(text.as_bytes());
    }

    /// Ends it, if it runs.
    pub(super) fn end(&mut self, code: i32) {
        if let Stage::Running { since } = self.stage {
            self.stage = Stage::Exited { since, at: Timestamp::now(), code };
        }
    }

    /// Delivers a signal.
    pub(super) fn signal(&mut self, signal: &str) {
        match signal {
            "SIGTERM" if !self.program.deaf && !self.program.undead => {
                self.end(self.program.term_code.unwrap_or(TERMINATED));
            }
            "SIGKILL" if !self.program.undead => self.end(KILLED),
            _ => {}
        }
    }

    /// Lets the next SIGKILL end it.
    pub(super) fn let_die(&mut self) {
        self.program.undead = false;
    }

    /// As `inspect` has it.
    pub(super) fn inspect(&self) -> Value {
        let (status, code, since, at) = match self.stage {
            Stage::Created => ("created", 0, None, None),
            Stage::Running { since } => ("running", 0, Some(since), None),
            Stage::Exited { since, at, code } => ("exited", code, Some(since), Some(at)),
        };
        let time = |at: Option<Timestamp>| {
            at.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |at| at.to_string())
        };
        json!({
            "Id": self.id,
            "Name": format!("/{}", self.name),
            "Image": self.image,
            "Config": {"Labels": self.labels, "Image": self.image, "Cmd": self.words},
            "State": {
                "Status": status,
                "Running": self.is_running(),
                "Paused": false,
                "Restarting": false,
                "OOMKilled": false,
                "Dead": false,
                "ExitCode": code,
                "Error": "",
                "StartedAt": time(since),
                "FinishedAt": time(at),
            },
            "Mounts": [],
        })
    }

    /// As a list of containers has it.
    pub(super) fn summary(&self) -> Value {
        let state = match self.stage {
            Stage::Created => "created",
            Stage::Running { .. } => "running",
            Stage::Exited { .. } => "exited",
        };
        json!({
            "Id": self.id,
            "Names": [format!("/{}", self.name)],
            "Image": self.image,
            "Labels": self.labels,
            "State": state,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Program, String> {
        let words: Vec<_> = text.split(' ').map(str::to_owned).collect();
        Program::parse(&words)
    }

    #[test]
    fn a_program_is_read_word_by_word() {
        let program = parse("deaf say a sleep 5 err b hold file f x exit 3").unwrap();
        assert_eq!(program.steps.len(), 4);
        assert_eq!((program.exit_code, program.deaf, program.undead), (3, true, false));
        assert_eq!(program.files, [("f".to_owned(), "x".to_owned())]);
        assert!(parse("dance").unwrap_err().contains("dance"));
        assert!(parse("sleep").unwrap_err().contains("wants more"));
    }

    #[test]
    fn a_signal_ends_only_who_hears_it() {
        let container = |program: &str| {
            let body = json!({"Cmd": []});
            let mut container = Container::new("1".into(), "a".into(), &body);
            container.program = parse(program).unwrap();
            container.stage = Stage::Running { since: Timestamp::now() };
            container
        };
        for (program, signal, ends) in [
            ("exit 0", "SIGTERM", true),
            ("deaf", "SIGTERM", false),
            ("deaf", "SIGKILL", true),
            ("undead", "SIGKILL", false),
        ] {
            let mut container = container(program);
            container.signal(signal);
            assert_eq!(container.is_running(), !ends, "{program} {signal}");
        }
    }
}
