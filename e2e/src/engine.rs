//! The Docker engine: that it answers, that the images of the tests are there, and what it says of
//! a container. A missing engine fails a test; it never skips one.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::binary::{Ran, root, run};
use crate::until;

/// An image with a shell and the usual small programs.
pub const BUSYBOX: &str = "cloudai-test/busybox";
/// The sample task of the repository.
pub const SAMPLE: &str = "cloudai/sample-task";

/// Runs the docker client.
pub fn docker(args: &[&str]) -> Ran {
    run(Command::new("docker").args(args))
}

/// Makes sure, once a test program, that an engine answers and has the images of the tests.
pub fn require() {
    static READY: OnceLock<()> = OnceLock::new();
    READY.get_or_init(|| {
        let version = docker(&["version", "--format", "{{.Server.Version}}"]);
        assert_eq!(
            version.code,
            0,
            "these tests need a Docker engine that answers: start one, or run them as \
             'scripts/with-docker.sh cargo test -p cloudai-e2e'. docker said: {}",
            version.err()
        );
        for script in ["e2e/images/build.sh", "scripts/sample-image.sh"] {
            let made = run(&mut Command::new(root().join(script)));
            assert_eq!(made.code, 0, "{script} failed:\n{}", made.err());
        }
    });
}

/// The ids of containers that carry a label, running or not.
pub fn containers_with(label: &str) -> Vec<String> {
    let filter = format!("label={label}");
    let listed = docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter]);
    assert_eq!(listed.code, 0, "{}", listed.err());
    listed.out().lines().map(str::to_owned).collect()
}

/// The label by which the containers of a worker on this data directory are known.
pub fn instance_label(worker_dir: &Path) -> String {
    format!("cloudai.instance={}", worker_dir.display())
}

/// What the engine says of a container.
pub fn inspect(container: &str) -> Value {
    let inspected = docker(&["inspect", container]);
    assert_eq!(inspected.code, 0, "{}", inspected.err());
    let mut list: Vec<Value> =
        serde_json::from_slice(&inspected.stdout).expect("docker gives JSON");
    list.pop().expect("one container was asked for")
}

/// Removes containers, running or not, with their volumes.
pub fn remove(containers: &[String]) {
    if containers.is_empty() {
        return;
    }
    let mut args = vec!["rm", "--force", "--volumes"];
    args.extend(containers.iter().map(String::as_str));
    // One that is being removed by its worker may be gone already.
    drop(docker(&args));
}

/// Waits until no container carries a label.
pub fn wait_gone(label: &str) {
    until("the containers are gone", || containers_with(label).is_empty().then_some(()));
}
