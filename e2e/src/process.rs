//! A process that a test started: what it has said until now, what it is told, how it ends.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::{PATIENCE, terminal, until};

/// A process. It is killed when this is dropped.
pub struct Process {
    name: String,
    child: Child,
    input: Option<Box<dyn Write + Send + Sync>>,
    output: Arc<Output>,
}

/// A place in what a process has said.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mark {
    out: usize,
    err: usize,
}

#[derive(Default)]
struct Output {
    said: Mutex<Said>,
    grown: Condvar,
}

#[derive(Default)]
struct Said {
    out: String,
    err: String,
    /// How many of its streams are still open.
    open: usize,
}

impl Said {
    fn since(&self, mark: Mark) -> [&str; 2] {
        [&self.out[mark.out..], &self.err[mark.err..]]
    }
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies a stream in a thread of its own until it ends.
    fn follow(
        self: &Arc<Self>,
        mut stream: impl Read + Send + 'static,
        side: fn(&mut Said) -> &mut String,
    ) {
        self.lock().open += 1;
        let output = Arc::clone(self);
        std::thread::spawn(move || {
            let (mut piece, mut rest) = ([0; 8192], Vec::new());
            // A terminal whose process has ended gives an error instead of an end.
            while let Ok(count @ 1..) = stream.read(&mut piece) {
                rest.extend_from_slice(&piece[..count]);
                let whole = whole_characters(&rest);
                let text = String::from_utf8_lossy(&rest[..whole]).into_owned();
                rest.drain(..whole);
                side(&mut output.lock()).push_str(&text);
                output.grown.notify_all();
            }
            output.lock().open -= 1;
            output.grown.notify_all();
        });
    }
}

/// How many bytes there are before a character that has only begun to arrive.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    }
}

impl Process {
    /// Starts a process without input.
    pub fn start(name: &str, command: &mut Command) -> Self {
        Self::spawn(name, command.stdin(Stdio::null()))
    }

    /// Starts a process that a test speaks to by its standard input.
    pub fn start_with_input(name: &str, command: &mut Command) -> Self {
        let mut process = Self::spawn(name, command.stdin(Stdio::piped()));
        let stdin = process.child.stdin.take().expect("its input was piped");
        process.input = Some(Box::new(stdin));
        process
    }

    /// Starts a process at a terminal of its own.
    pub fn start_at_terminal(name: &str, command: &Command) -> Self {
        let terminal = terminal::open();
        let child = terminal.start(name, command);
        let output = Arc::new(Output::default());
        let (reader, writer) = terminal.into_sides();
        output.follow(reader, |said| &mut said.out);
        Self { name: name.to_owned(), child, input: Some(Box::new(writer)), output }
    }

    fn spawn(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let output = Arc::new(Output::default());
        output.follow(child.stdout.take().expect("it was piped"), |said| &mut said.out);
        output.follow(child.stderr.take().expect("it was piped"), |said| &mut said.err);
        Self { name: name.to_owned(), child, input: None, output }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it has said until now.
    pub fn said(&self) -> String {
        let said = self.output.lock();
        format!("{}{}", said.out, said.err)
    }

    /// The present end of what it has said.
    pub fn mark(&self) -> Mark {
        let said = self.output.lock();
        Mark { out: said.out.len(), err: said.err.len() }
    }

    /// Waits until it has said `text`.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        self.wait_for_after(Mark::default(), text);
    }

    /// Waits until it has said each of `texts`, in any order.
    #[track_caller]
    pub fn wait_for_all(&self, texts: &[&str]) {
        for text in texts {
            self.wait_for(text);
        }
    }

    /// Waits until it says `text` behind a mark.
    #[track_caller]
    pub fn wait_for_after(&self, mark: Mark, text: &str) {
        let found = self.find(mark, |said| said.contains(text).then_some(()));
        self.expect_found(text, found);
    }

    /// Waits until it has said a whole line with `text` in it, and gives what stands behind `text`
    /// in the line.
    #[track_caller]
    pub fn wait_for_rest(&self, text: &str) -> String {
        let found = self.find(Mark::default(), |said| {
            let rest = &said[said.find(text)? + text.len()..];
            rest.split_once('\n').map(|(rest, _)| rest.trim_end().to_owned())
        });
        self.expect_found(text, found)
    }

    #[track_caller]
    fn expect_found<T>(&self, text: &str, found: Option<T>) -> T {
        found.unwrap_or_else(|| {
            panic!("{} never said '{text}'; it said:\n{}", self.name, self.said())
        })
    }

    /// Looks at each stream whenever it has grown; gives up when both have ended.
    fn find<T>(&self, mark: Mark, look: impl Fn(&str) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut said = self.output.lock();
        loop {
            if let Some(found) = said.since(mark).into_iter().find_map(&look) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || said.open == 0 {
                return None;
            }
            let waited = self.output.grown.wait_timeout(said, left);
            said = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Types a line.
    pub fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("it was started with an input");
        let written = input.write_all(format!("{line}\n").as_bytes()).and_then(|()| input.flush());
        written.unwrap_or_else(|error| panic!("{} does not read: {error}", self.name));
    }

    /// Types a key at a terminal.
    pub fn press(&mut self, key: u8) {
        let input = self.input.as_mut().expect("it was started with an input");
        input.write_all(&[key]).and_then(|()| input.flush()).expect("the terminal takes a key");
    }

    /// Ends its input.
    pub fn end_input(&mut self) {
        self.input = None;
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGSTOP: it stands still, as on a machine that is put to sleep.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Sends SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process is there");
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// How it ended, when it has: its exit code, or 128 and the signal that ended it.
    pub fn find_end(&mut self) -> Option<i32> {
        let status = self.child.try_wait().expect("it is our child")?;
        Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
    }

    /// Kills it, as `kill -9` does, and waits until it is gone.
    pub fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Waits until nothing holds its output any more: all that it started is gone as well. It gives
    /// up silently, as it is of use where something failed already.
    pub fn wait_silence(&self) {
        self.find(Mark::default(), |_| None::<()>);
    }

    /// Waits for its end; its exit code, or 128 and the signal that ended it.
    #[track_caller]
    pub fn wait_end(&mut self) -> i32 {
        let what = format!("the end of {}", self.name);
        until(&what, || self.find_end())
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "what the processes said belongs to a failed test")]
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- {} said ----\n{}", self.name, self.said());
        }
    }
}
