//! The dependency tree as `cargo metadata` tells it: only what the rules ask.
//!
//! Facts, no rules. Read next: `law.rs`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Deserialize;

/// Every package of the build, ours and others'.
pub(super) struct Tree {
    packages: BTreeMap<String, Package>,
    members: BTreeSet<String>,
    edges: BTreeMap<String, Vec<Edge>>,
}

/// A package.
#[derive(Deserialize)]
pub(super) struct Package {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) license: Option<String>,
    pub(super) license_file: Option<String>,
}

/// What one package uses of another.
struct Edge {
    to: String,
    kinds: BTreeSet<Kind>,
}

/// For what a dependency is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Normal,
    Build,
    Dev,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    kind: Option<String>,
}

impl Tree {
    /// Reads the output of `cargo metadata --format-version 1`.
    pub(super) fn parse(json: &str) -> Result<Self> {
        let metadata: Metadata =
            serde_json::from_str(json).context("cargo metadata has another form than expected")?;
        let edges = metadata.resolve.nodes.into_iter().map(|node| {
            let edges = node.deps.into_iter().map(|dependency| Edge {
                to: dependency.pkg,
                kinds: dependency.dep_kinds.iter().map(kind).collect(),
            });
            (node.id, edges.collect())
        });
        Ok(Self {
            edges: edges.collect(),
            members: metadata.workspace_members.into_iter().collect(),
            packages: metadata.packages.into_iter().map(|one| (one.id.clone(), one)).collect(),
        })
    }

    /// Every package.
    pub(super) fn packages(&self) -> impl Iterator<Item = &Package> {
        self.packages.values()
    }

    /// The packages of this workspace.
    pub(super) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.values().filter(|package| self.is_member(package))
    }

    /// Whether a package is ours.
    pub(super) fn is_member(&self, package: &Package) -> bool {
        self.members.contains(&package.id)
    }

    /// What a package names in its own manifest and the build uses, for these kinds.
    pub(super) fn direct(&self, package: &Package, kinds: &[Kind]) -> Vec<&Package> {
        let edges = self.edges.get(&package.id).into_iter().flatten();
        edges
            .filter(|edge| kinds.iter().any(|kind| edge.kinds.contains(kind)))
            .filter_map(|edge| self.packages.get(&edge.to))
            .collect()
    }

    /// Everything that a package links, however deep.
    pub(super) fn linked(&self, package: &Package) -> Vec<&Package> {
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        let mut open = self.direct(package, &[Kind::Normal]);
        while let Some(next) = open.pop() {
            if seen.insert(&next.id) {
                open.extend(self.direct(next, &[Kind::Normal]));
                found.push(next);
            }
        }
        found
    }
}

fn kind(kind: &DependencyKind) -> Kind {
    match kind.kind.as_deref() {
        None => Kind::Normal,
        Some("build") => Kind::Build,
        Some(_) => Kind::Dev,
    }
}

/// A tree for tests: `from -> to to`, with `(dev)` or `(build)` behind a name.
#[cfg(test)]
pub(super) fn tree(members: &[&str], edges: &[(&str, &[&str])]) -> Tree {
    let mut tree =
        Tree { packages: BTreeMap::new(), members: BTreeSet::new(), edges: BTreeMap::new() };
    let mut add = |name: &str| {
        let package = Package {
            id: name.into(),
            name: name.into(),
            version: "1.0.0".into(),
            license: Some("MIT".into()),
            license_file: None,
        };
        tree.packages.insert(name.into(), package);
    };
    let plain = |name: &str| name.trim_end_matches("(dev)").trim_end_matches("(build)").to_owned();
    for name in members {
        add(name);
    }
    for (from, to) in edges {
        add(from);
        for name in *to {
            add(&plain(name));
        }
    }
    tree.members = members.iter().map(|&name| name.to_owned()).collect();
    for (from, to) in edges {
        let edges = to.iter().map(|name| {
            let kind = match name.split_once('(') {
                Some((_, "dev)")) => Kind::Dev,
                Some(_) => Kind::Build,
                None => Kind::Normal,
            };
            Edge { to: plain(name), kinds: BTreeSet::from([kind]) }
        });
        tree.edges.insert((*from).to_owned(), edges.collect());
    }
    tree
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_becomes_a_tree() {
        let json = r#"{"packages": [
                {"id": "a", "name": "a", "version": "1.0.0", "license": "MIT",
                 "license_file": null},
                {"id": "b", "name": "b", "version": "2.0.0", "license": null,
                 "license_file": "L"}],
            "workspace_members": ["a"],
            "resolve": {"nodes": [
                {"id": "a", "deps": [{"pkg": "b", "dep_kinds": [{"kind": "dev"}]}]},
                {"id": "b", "deps": []}]}}"#;
        let tree = Tree::parse(json).unwrap();
        let a = tree.members().next().unwrap();
        assert_eq!(tree.direct(a, &[Kind::Dev])[0].version, "2.0.0");
        assert!(tree.linked(a).is_empty(), "a development dependency is not linked");
    }
}
