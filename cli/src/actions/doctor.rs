//! `doctor`: what keeps CloudAI from working on this machine, and what to do about it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Session;
use crate::exit;
use crate::failure::Failure;
use crate::output::write_json;

const ENGINE_TIMEOUT: Duration = Duration::from_secs(5);
const ENGINE_SOCKET: &str = "/var/run/docker.sock";
const ENGINE_ANSWER_MAX: u64 = 64 << 10;

/// Where the roles would listen and keep their data.
#[derive(Debug, Clone)]
pub struct DoctorPorts {
    /// Each with what it is for and the flag that changes it.
    pub ports: Vec<(SocketAddr, &'static str, &'static str)>,
    /// Where data would be kept.
    pub data_dir: PathBuf,
    /// Whether somebody said where the master is: then it must be there.
    pub master_named: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Note,
    Problem,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Problem => "problem",
        }
    }
}

struct Finding {
    verdict: Verdict,
    what: String,
    todo: Option<String>,
}

impl Finding {
    fn ok(what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, what: what.into(), todo: None }
    }

    fn problem(what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { verdict: Verdict::Problem, what: what.into(), todo: Some(todo.into()) }
    }

    fn note(what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { verdict: Verdict::Note, ..Self::problem(what, todo) }
    }
}

/// Looks at everything and tells; the answer is 1 when there is a problem.
pub fn doctor(session: &mut Session, places: &DoctorPorts) -> Result<u8, Failure> {
    let mut findings = vec![engine(), data_dir(&places.data_dir)];
    let master = session.client.health();
    let running = master.is_ok();
    findings.push(match master {
        Ok(health) if health.ready => {
            Finding::ok(format!("master {} at {}", health.version, session.client.address()))
        }
        Ok(health) => Finding::problem(
            format!("master at {} is not ready", session.client.address()),
            health.reason.unwrap_or_else(|| "wait a moment, then look at its log".to_owned()),
        ),
        Err(failure) if places.master_named => Finding::problem(
            failure.message,
            failure.hint.unwrap_or_else(|| "check --master-url and CLOUDAI_URL".to_owned()),
        ),
        Err(failure) => Finding::note(failure.message, "start one with 'cloudai up'"),
    });
    findings.extend(
        places.ports.iter().map(|(address, what, flag)| port(*address, what, flag, running)),
    );
    tell(session, &findings)
}

fn tell(session: &mut Session, findings: &[Finding]) -> Result<u8, Failure> {
    if session.json {
        let list: Vec<_> = findings
            .iter()
            .map(|finding| {
                serde_json::json!({
                    "verdict": finding.verdict.word(), "what": finding.what, "todo": finding.todo,
                })
            })
            .collect();
        write_json(&mut session.screen, &list)?;
    } else {
        for finding in findings {
            session.screen.line(format!("{:<8} {}", finding.verdict.word(), finding.what))?;
            if let Some(todo) = &finding.todo {
                session.screen.line(format!("         {todo}"))?;
            }
        }
    }
    let problem = findings.iter().any(|finding| finding.verdict == Verdict::Problem);
    Ok(if problem { exit::NO } else { exit::OK })
}

/// Whether a Docker engine answers, and which.
fn engine() -> Finding {
    let host = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    let path = match &host {
        None => ENGINE_SOCKET,
        Some(host) => match host.strip_prefix("unix://") {
            Some(path) => path,
            None => {
                return Finding::note(
                    format!("the container engine at {host} was not looked at"),
                    "doctor looks at engines on a Unix socket only",
                );
            }
        },
    };
    match ask_engine(Path::new(path)) {
        Ok(version) => Finding::ok(format!("container engine {version} at {path}")),
        Err(error) => {
            let todo = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "add yourself to its group: sudo usermod -aG docker $USER, then log in again"
                }
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    "install and start it: sudo apt install docker.io, sudo systemctl start docker"
                }
                _ => "look at its log: journalctl -u docker",
            };
            Finding::problem(format!("no container engine answers at {path}: {error}"), todo)
        }
    }
}

/// `GET /version` over the socket: one request, so no client library is needed for it.
fn ask_engine(path: &Path) -> io::Result<String> {
    let mut socket = UnixStream::connect(path)?;
    socket.set_read_timeout(Some(ENGINE_TIMEOUT))?;
    socket.set_write_timeout(Some(ENGINE_TIMEOUT))?;
    socket.write_all(b"GET /version HTTP/1.0\r\nHost: engine\r\n\r\n")?;
    let mut answer = String::new();
    socket.take(ENGINE_ANSWER_MAX).read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let version: serde_json::Value = serde_json::from_str(body.trim())
        .map_err(|_| io::Error::other("it does not answer as an engine"))?;
    let text = |key: &str| version[key].as_str().unwrap_or("?").to_owned();
    Ok(format!("{} (API {})", text("Version"), text("ApiVersion")))
}

/// Whether data can be kept there. A folder that is not there yet is judged by its parent.
fn data_dir(dir: &Path) -> Finding {
    let there = dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let shown = dir.display();
    match tempfile_in(there) {
        Ok(()) if there == dir => Finding::ok(format!("data directory {shown}")),
        Ok(()) => Finding::ok(format!("data directory {shown} (will be made)")),
        Err(error) => Finding::problem(
            format!("data directory {shown} cannot be written: {error}"),
            "choose another with --data-dir or CLOUDAI_DATA, or change its owner",
        ),
    }
}

/// Makes a file and removes it again: the only honest test of a right to write.
fn tempfile_in(dir: &Path) -> io::Result<()> {
    let path = dir.join(format!(".cloudai-doctor-{}", std::process::id()));
    let made = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
    made.and_then(|_| std::fs::remove_file(&path))
}

fn port(address: SocketAddr, what: &str, flag: &str, running: bool) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(format!("port {} for {what} is free", address.port())),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && running => {
            Finding::ok(format!("port {} for {what} is in use; a master runs", address.port()))
        }
        Err(error) => Finding::problem(
            format!("port {} for {what} cannot be had: {error}", address.port()),
            format!("stop the program that has it (ss -ltnp), or choose another with {flag}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_written_is_a_problem() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(data_dir(dir.path()).verdict, Verdict::Ok);
        assert!(data_dir(&dir.path().join("a/b")).what.ends_with("(will be made)"));
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(data_dir(&file.join("below")).verdict, Verdict::Problem);
    }

    #[test]
    fn a_port_that_another_has_is_a_problem_unless_a_master_runs() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(port(address, "x", "--x", false).verdict, Verdict::Problem);
        assert_eq!(port(address, "x", "--x", true).verdict, Verdict::Ok);
    }

    #[test]
    fn an_engine_that_is_not_there_is_named() {
        let error = ask_engine(Path::new("/nowhere/docker.sock")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
