//! The binary under test: built once a test program, from the sources beside it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// What a command left behind when it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code; 128 and the signal when a signal ended it.
    pub code: i32,
    /// Its standard output, byte for byte.
    pub stdout: Vec<u8>,
    /// Its standard error, byte for byte.
    pub stderr: Vec<u8>,
}

impl Ran {
    /// The standard output as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The standard error as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Fails unless it ended with `code` and says each of `texts` somewhere.
    #[track_caller]
    pub fn check(&self, code: i32, texts: &[&str]) {
        let all = format!("{}{}", self.out(), self.err());
        assert_eq!(self.code, code, "another exit code:\n{all}");
        for text in texts {
            assert!(all.contains(text), "'{text}' is missing in:\n{all}");
        }
    }
}

/// Runs a command to its end without input.
pub fn run(command: &mut Command) -> Ran {
    use std::os::unix::process::ExitStatusExt;
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {name}: {error}"));
    let signal = || 128 + output.status.signal().unwrap_or_default();
    Ran {
        code: output.status.code().unwrap_or_else(signal),
        stdout: output.stdout,
        stderr: output.stderr,
    }
}

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e lies in the repository")
}

/// The binary `cloudai`: the one that `CLOUDAI_E2E_BINARY` names, else it is built now in the
/// profile of this test program.
pub fn cloudai() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match std::env::var_os("CLOUDAI_E2E_BINARY") {
        Some(path) => PathBuf::from(path),
        None => build(),
    })
}

fn build() -> PathBuf {
    let program = std::env::current_exe().expect("this program has a path");
    // target/<profile>/deps/<program>
    let folder = program.ancestors().nth(2).expect("test programs lie in target/<profile>/deps");
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = folder.parent().expect("a profile lies in the target directory");
    let mut command = Command::new(cargo);
    command.current_dir(root()).arg("build").args(["--locked", "--package", "cloudai"]);
    command.args(["--features", "failpoints"]);
    command.args(["--profile", profile, "--target-dir"]).arg(target);
    let built = run(&mut command);
    assert_eq!(built.code, 0, "the binary cannot be built:\n{}", built.err());
    folder.join("cloudai")
}

/// Makes the links under which the specification knows the two roles, `master-node` and
/// `worker-node`, in `folder`.
pub fn links(folder: &Path) -> (PathBuf, PathBuf) {
    let link = |name: &str| {
        let path = folder.join(name);
        std::os::unix::fs::symlink(cloudai(), &path).expect("a link can be made");
        path
    };
    (link("master-node"), link("worker-node"))
}
