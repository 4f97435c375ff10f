//! The rules of the house that neither the compiler nor clippy checks.
//!
//! Each rule is a function from text or metadata to violations, so that its tests are data in and
//! text out. This file only gathers: it finds the files and the dependency tree and prints what
//! the rules say. Read next: `law.rs` (who may use whom) and `source.rs` (sizes and words).

mod law;
mod licence;
mod links;
mod scan;
mod scenarios;
mod source;
mod tree;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use tree::Tree;

/// Folders that hold nothing of ours.
const FOREIGN_FOLDERS: [&str; 4] = ["target", ".git", "node_modules", "__pycache__"];

/// A rule that is broken: where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    place: String,
    what: String,
}

impl Violation {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// A text file of the repository.
struct File {
    /// From the root, with `/` between folders.
    path: String,
    text: String,
}

/// Checks every rule; fails when one is broken.
pub(crate) fn run(root: &Path) -> Result<()> {
    let tree = Tree::parse(&metadata(root)?)?;
    let policy = licence::Policy::parse(&fs::read_to_string(root.join("deny.toml"))?)?;
    let files = read_files(root)?;

    let mut violations = law::check(&tree);
    violations.extend(licence::check(&tree, &policy));
    for file in &files {
        violations.extend(source::check(&file.path, &file.text));
        violations.extend(links::check(&file.path, &file.text, |path| root.join(path).exists()));
    }
    violations.extend(scenarios::check(&files));
    violations.sort();
    for file in &files {
        if let Some(warning) = source::warn(&file.path, &file.text) {
            println!("warning: {warning}");
        }
    }
    for violation in &violations {
        println!("{violation}");
    }
    let (files, crates) = (files.len(), tree.packages().count());
    ensure!(violations.is_empty(), "tidy: {} rules are broken", violations.len());
    println!("tidy: {files} files and {crates} crates keep the rules");
    Ok(())
}

fn metadata(root: &Path) -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root)
        .output()
        .context("cargo metadata could not be started")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn read_files(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let name = entry.file_name();
            let path = folder.join(&name);
            if entry.file_type()?.is_dir() {
                if !FOREIGN_FOLDERS.iter().any(|foreign| name == *foreign) {
                    folders.push(path);
                }
            } else if entry.file_type()?.is_file()
                // What is not text is not for these rules.
                && let Ok(text) = fs::read_to_string(root.join(&path))
            {
                files.push(File { path: path.to_string_lossy().replace('\\', "/"), text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_repository_are_found_and_build_output_is_not() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let paths: Vec<_> = read_files(root).unwrap().into_iter().map(|file| file.path).collect();
        assert!(paths.contains(&"src/tidy/law.rs".to_owned()), "{paths:?}");
        assert!(!paths.iter().any(|path| path.starts_with("target/")), "{paths:?}");
    }
}
