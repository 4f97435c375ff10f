//! Licences and bans over the whole tree, as `deny.toml` lists them.
//!
//! It understands the SPDX expressions that crates use (`OR`, `AND`, `WITH`, brackets and the old
//! `/`); what it does not understand is refused, never let through.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Violation;
use super::tree::Tree;

/// The licence of this project.
const OURS: &str = "Apache-2.0";

/// What `deny.toml` says.
pub(super) struct Policy {
    allowed: BTreeSet<String>,
    banned: BTreeSet<String>,
}

#[derive(Deserialize)]
struct DenyFile {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    name: String,
}

impl Policy {
    /// Reads `deny.toml`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let file: DenyFile = toml::from_str(text).context("deny.toml")?;
        Ok(Self {
            allowed: file.licenses.allow.into_iter().collect(),
            banned: file.bans.deny.into_iter().map(|ban| ban.name).collect(),
        })
    }

    fn allows(&self, expression: &str) -> bool {
        let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
        let words: Vec<_> = spaced.split_whitespace().collect();
        let mut rest = words.as_slice();
        self.any_of(&mut rest) == Some(true) && rest.is_empty()
    }

    /// `a OR b`; `None` when the expression makes no sense.
    fn any_of(&self, rest: &mut &[&str]) -> Option<bool> {
        let mut allowed = self.all_of(rest)?;
        while take(rest, "OR") {
            allowed |= self.all_of(rest)?;
        }
        Some(allowed)
    }

    fn all_of(&self, rest: &mut &[&str]) -> Option<bool> {
        let mut allowed = self.one(rest)?;
        while take(rest, "AND") {
            allowed &= self.one(rest)?;
        }
        Some(allowed)
    }

    fn one(&self, rest: &mut &[&str]) -> Option<bool> {
        if take(rest, "(") {
            let allowed = self.any_of(rest)?;
            return take(rest, ")").then_some(allowed);
        }
        let (name, after) = rest.split_first()?;
        *rest = after;
        if take(rest, "WITH") {
            let (exception, after) = rest.split_first()?;
            *rest = after;
            return Some(self.allowed.contains(&format!("{name} WITH {exception}")));
        }
        Some(self.allowed.contains(*name))
    }
}

fn take(rest: &mut &[&str], word: &str) -> bool {
    let found = rest.first() == Some(&word);
    if found {
        *rest = &rest[1..];
    }
    found
}

/// Every package with a licence that is not allowed, or that is banned.
pub(super) fn check(tree: &Tree, policy: &Policy) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in tree.packages() {
        let mut refuse = |what: String| violations.push(Violation::new(&package.name, what));
        if policy.banned.contains(&package.name) {
            refuse(format!("version {} is in the tree, but deny.toml bans it", package.version));
        }
        match package.license.as_deref() {
            Some(licence) if tree.is_member(package) && licence != OURS => {
                refuse(format!("its manifest says {licence}: ours is {OURS}"));
            }
            Some(licence) if !policy.allows(licence) => {
                refuse(format!("licence {licence} is not in deny.toml"));
            }
            Some(_) => {}
            None => {
                let named = package.license_file.as_deref().unwrap_or("nothing");
                refuse(format!("its manifest names no licence (its licence file: {named})"));
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::tree::tree;
    use super::*;

    fn policy() -> Policy {
        Policy::parse(
            "[licenses]\nallow = [\"MIT\", \"Apache-2.0\", \"Apache-2.0 WITH LLVM-exception\"]\n\
             [bans]\ndeny = [{ name = \"ring\" }]",
        )
        .unwrap()
    }

    #[test]
    fn an_expression_is_allowed_when_one_way_through_it_is() {
        for (expression, want) in [
            ("MIT", true),
            ("MIT/Apache-2.0", true),
            ("GPL-3.0-only", false),
            ("GPL-3.0-only OR MIT", true),
            ("GPL-3.0-only AND MIT", false),
            ("(MIT OR GPL-3.0-only) AND Apache-2.0", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("MIT WITH LLVM-exception", false),
            ("MIT OR", false),
            ("(MIT", false),
            ("MIT MIT", false),
            ("", false),
        ] {
            assert_eq!(policy().allows(expression), want, "{expression}");
        }
    }

    #[test]
    fn a_banned_crate_and_a_foreign_licence_of_ours_are_found() {
        let tree = tree(&["cloudai-model"], &[("hyper-rustls", &["ring"])]);
        let got: Vec<_> = check(&tree, &policy()).iter().map(ToString::to_string).collect();
        assert_eq!(
            got,
            [
                "cloudai-model: its manifest says MIT: ours is Apache-2.0",
                "ring: version 1.0.0 is in the tree, but deny.toml bans it",
            ]
        );
    }
}
