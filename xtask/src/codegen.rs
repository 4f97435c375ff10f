//! Generates the Rust code of the protos, without a system protoc, and tells when it is stale.

use std::path::Path;

use anyhow::{Context, Result, bail};

const PROTOS: [&str; 3] = ["master_worker.proto", "master_agent.proto", "worker_record.proto"];
const GENERATED: &str = "proto/src/generated";

/// Writes the generated code, or with `check` only compares it with what is committed.
pub(crate) fn run(root: &Path, check: bool) -> Result<()> {
    let fresh = tempdir(root)?;
    generate(&root.join("proto"), &fresh)?;
    let committed = root.join(GENERATED);
    let mut stale = Vec::new();
    for entry in std::fs::read_dir(&fresh)? {
        let entry = entry?;
        let want = std::fs::read(entry.path())?;
        let target = committed.join(entry.file_name());
        if std::fs::read(&target).ok().as_ref() == Some(&want) {
            continue;
        }
        if check {
            stale.push(target.display().to_string());
        } else {
            std::fs::create_dir_all(&committed)?;
            std::fs::write(&target, want)?;
        }
    }
    std::fs::remove_dir_all(&fresh)?;
    if !stale.is_empty() {
        bail!("stale: {}. Run `make proto` and commit what it writes.", stale.join(", "));
    }
    Ok(())
}

fn generate(protos: &Path, out: &Path) -> Result<()> {
    let descriptors = protox::compile(PROTOS, [protos]).context("the protos do not compile")?;
    tonic_prost_build::configure()
        .out_dir(out)
        .compile_fds(descriptors)
        .context("code generation failed")
}

fn tempdir(root: &Path) -> Result<std::path::PathBuf> {
    let dir = root.join("target").join(format!("codegen-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}
