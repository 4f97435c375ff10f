//! A real Docker engine of a test's own, to be stopped, killed and started again while the engine
//! of the machine goes on. It lives in a house of namespaces (processes, mounts, network), so that
//! it shares nothing with that one but the kernel, and so that the end of the house is the end of
//! all that lived in it: dockerd, containerd, shims, containers and mounts.
//!
//! That needs root; where it is not permitted the test fails and says so. It must never touch the
//! machine's engine but to copy an image out of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::binary::{Ran, run};
use crate::process::Process;
use crate::{engine, until};

/// The namespaces.
const HOUSE: [&str; 6] = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// The engine. All of it is gone when this is dropped.
pub struct PrivateEngine {
    /// A shell that does what it is told; the first process of its namespace.
    house: Process,
    dir: PathBuf,
}

impl PrivateEngine {
    /// An engine that serves, with its data in `dir` and a copy of an image of the machine's.
    pub fn start(dir: &Path, image: &str) -> Self {
        engine::require();
        let tried = run(Command::new("unshare").args(HOUSE).arg("true"));
        assert_eq!(
            tried.code,
            0,
            "this test runs a Docker engine in namespaces of its own: run it as root. unshare \
             said: {}",
            tried.err()
        );
        let house = Process::start_with_input(
            "the private engine",
            Command::new("unshare").args(HOUSE).args(["sh", "-s"]),
        );
        let mut engine = Self { house, dir: dir.join("engine") };
        std::fs::create_dir(&engine.dir).expect("a directory can be made");
        // Where engines meet each other.
        engine.tell("mount -t tmpfs tmpfs /run", "house ready 0");
        engine.serve();
        engine.load(image);
        engine
    }

    /// Has the shell run a command; waits until `answer` is said, which ends with the exit code.
    #[track_caller]
    fn tell(&mut self, command: &str, answer: &str) {
        let mark = self.house.mark();
        let words = answer.rsplit_once(' ').map_or(answer, |(words, _)| words);
        self.house.say(&format!("{command}; echo \"{words} $?\""));
        self.house.wait_for_after(mark, answer);
    }

    fn load(&self, image: &str) {
        let file = self.dir.join("image.tar");
        let path = file.to_str().expect("the path of a test is UTF-8");
        let saved = engine::docker(&["save", "--output", path, image]);
        assert_eq!(saved.code, 0, "{}", saved.err());
        let loaded = self.docker(&["load", "--input", path]);
        assert_eq!(loaded.code, 0, "{}", loaded.err());
    }

    /// Serves, again after [`stop`](Self::stop) or [`kill`](Self::kill): on what the time before
    /// left behind.
    #[track_caller]
    pub fn serve(&mut self) {
        let command = format!(
            "dockerd --host {} --data-root {}/data --exec-root /run/docker --pidfile \
             /run/docker.pid --bridge none --iptables=false --ip6tables=false & engine=$!",
            self.host(),
            self.dir.display()
        );
        self.house.say(&command);
        until("the private engine answers", || (self.docker(&["version"]).code == 0).then_some(()));
    }

    /// SIGSTOP: it hangs, and its containers run on.
    pub fn pause(&mut self) {
        self.tell("kill -STOP $engine", "paused 0");
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.tell("kill -CONT $engine", "resumed 0");
    }

    /// SIGTERM, as `systemctl stop docker` does; waits for its end.
    #[track_caller]
    pub fn stop(&mut self) {
        self.tell("kill -TERM $engine; wait $engine", "stopped 0");
    }

    /// SIGKILL; its containers may run on.
    #[track_caller]
    pub fn kill(&mut self) {
        self.tell("kill -KILL $engine; wait $engine", "killed 137");
    }

    /// The address, as `DOCKER_HOST` has it.
    pub fn host(&self) -> String {
        format!("unix://{}/docker.sock", self.dir.display())
    }

    /// Runs the docker client on this engine.
    pub fn docker(&self, args: &[&str]) -> Ran {
        run(Command::new("docker").args(["--host", &self.host()]).args(args))
    }

    /// The names of all containers, running or not.
    #[track_caller]
    pub fn containers(&self) -> Vec<String> {
        let listed = self.docker(&["ps", "--all", "--format", "{{.Names}}"]);
        assert_eq!(listed.code, 0, "{}", listed.err());
        listed.out().lines().map(str::to_owned).collect()
    }

    /// The directory that a container has as its `/output`.
    #[track_caller]
    pub fn output_of(&self, container: &str) -> PathBuf {
        let format = "{{range .Mounts}}{{if eq .Destination \"/output\"}}{{.Source}}{{end}}{{end}}";
        let inspected = self.docker(&["inspect", "--format", format, container]);
        assert_eq!(inspected.code, 0, "{}", inspected.err());
        PathBuf::from(inspected.out().trim())
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        self.house.kill();
        self.house.wait_silence();
    }
}
