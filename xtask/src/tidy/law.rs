//! The dependency law: which crate of ours may use which, and what the pure crates may link.
//!
//! The table is the law; ARCHITECTURE.md tells it in words. A new crate or a new arrow is an
//! architectural decision: it is made here, on purpose, or it is a violation.

use super::Violation;
use super::tree::{Kind, Package, Tree};

/// What one crate may use.
struct Law {
    name: &'static str,
    /// Crates of ours, in the program itself.
    ours: &'static [&'static str],
    /// Crates of ours, in its tests only.
    ours_in_tests: &'static [&'static str],
    outside: Outside,
}

/// What a crate may use of others' work.
enum Outside {
    Any,
    Only(&'static [&'static str]),
}

/// What a pure crate never links, however deep: nothing that does IO, keeps time, draws chance or
/// fixes a format.
const NEVER_IN_PURE: [&str; 12] = [
    "axum", "bollard", "chrono", "hyper", "jiff", "mongodb", "prost", "rand", "rusqlite", "serde",
    "tokio", "tonic",
];

const PURE: [&str; 4] =
    ["cloudai-model", "cloudai-scheduler", "cloudai-master-core", "cloudai-worker-core"];

/// What nothing may use: they stand above everything else.
const ROOFS: [&str; 4] = ["cloudai-sim", "cloudai-e2e", "cloudai-bench", "cloudai-xtask"];

const LAWS: [Law; 16] = [
    law("cloudai-model", &[], Outside::Only(&["thiserror"])),
    law("cloudai-scheduler", &["cloudai-model"], Outside::Only(&["thiserror"])),
    law("cloudai-worker-core", &["cloudai-model"], Outside::Only(&["thiserror"])),
    law(
        "cloudai-master-core",
        &["cloudai-model", "cloudai-scheduler"],
        Outside::Only(&["thiserror"]),
    ),
    // utoipa only with the feature `openapi`: the master describes its API from these types.
    law("cloudai-api", &[], Outside::Only(&["serde", "utoipa"])),
    law("cloudai-proto", &["cloudai-model"], Outside::Only(&["prost", "tonic", "tonic-prost"])),
    law(
        "cloudai-database",
        &["cloudai-model"],
        Outside::Only(&["mongodb", "rusqlite", "serde", "serde_json", "thiserror"]),
    ),
    // Without its feature, which only tests switch on, it is an empty macro.
    law("cloudai-failpoint", &[], Outside::Only(&["rustix"])),
    law("cloudai-cli", &["cloudai-api"], Outside::Any),
    law(
        "cloudai-worker",
        &["cloudai-worker-core", "cloudai-model", "cloudai-proto", "cloudai-failpoint"],
        Outside::Any,
    ),
    law(
        "cloudai-master",
        &[
            "cloudai-master-core",
            "cloudai-scheduler",
            "cloudai-model",
            "cloudai-database",
            "cloudai-proto",
            "cloudai-api",
            "cloudai-cli",
            "cloudai-failpoint",
        ],
        Outside::Any,
    ),
    // Chance from one number (fastrand), and arguments (lexopt): nothing that the cores see.
    law(
        "cloudai-sim",
        &[
            "cloudai-model",
            "cloudai-scheduler",
            "cloudai-master-core",
            "cloudai-worker-core",
            "cloudai-database",
        ],
        Outside::Only(&["fastrand", "lexopt"]),
    ),
    law(
        "cloudai",
        &["cloudai-master", "cloudai-worker", "cloudai-cli", "cloudai-failpoint"],
        Outside::Any,
    ),
    // They know the system from outside: as a binary, over HTTP, over the wire.
    Law {
        name: "cloudai-e2e",
        ours: &[],
        ours_in_tests: &["cloudai-proto"],
        outside: Outside::Any,
    },
    law("cloudai-bench", &[], Outside::Any),
    law("cloudai-xtask", &[], Outside::Any),
];

const fn law(name: &'static str, ours: &'static [&'static str], outside: Outside) -> Law {
    Law { name, ours, ours_in_tests: &[], outside }
}

/// Every arrow that the law does not know.
pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in tree.members() {
        match LAWS.iter().find(|law| law.name == package.name) {
            Some(law) => violations.extend(check_arrows(tree, package, law)),
            None => violations.push(Violation::new(
                &package.name,
                "is not in the dependency law: add it to xtask/src/tidy/law.rs on purpose",
            )),
        }
        if PURE.contains(&package.name.as_str()) {
            violations.extend(check_purity(tree, package));
        }
    }
    violations
}

fn check_arrows(tree: &Tree, package: &Package, law: &Law) -> Vec<Violation> {
    let refuse = |used: &Package, why: &str| {
        Violation::new(&package.name, format!("uses {}: {why}", used.name))
    };
    let mut violations = Vec::new();
    for used in tree.direct(package, &[Kind::Normal, Kind::Build]) {
        let name = used.name.as_str();
        if tree.is_member(used) {
            if !law.ours.contains(&name) {
                violations.push(refuse(used, "the dependency law has no such arrow"));
            }
        } else if let Outside::Only(allowed) = law.outside
            && !allowed.contains(&name)
        {
            let why = format!("from outside it may use only {}", listed(allowed));
            violations.push(refuse(used, &why));
        }
    }
    for used in tree.direct(package, &[Kind::Dev]).into_iter().filter(|one| tree.is_member(one)) {
        let name = used.name.as_str();
        let allowed = law.ours.contains(&name) || law.ours_in_tests.contains(&name);
        if ROOFS.contains(&name) || !allowed {
            violations.push(refuse(used, "the dependency law has no such arrow, also for tests"));
        }
    }
    violations
}

fn check_purity(tree: &Tree, package: &Package) -> Vec<Violation> {
    let linked = tree.linked(package);
    let impure = linked.iter().filter(|one| NEVER_IN_PURE.contains(&one.name.as_str()));
    impure
        .map(|one| Violation::new(&package.name, format!("is pure, but links {}", one.name)))
        .collect()
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::super::tree::tree;
    use super::*;

    fn check_text(members: &[&str], edges: &[(&str, &[&str])], want: &[&str]) {
        let got: Vec<_> = check(&tree(members, edges)).iter().map(ToString::to_string).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn an_arrow_of_the_law_is_allowed() {
        check_text(
            &["cloudai-model", "cloudai-scheduler", "cloudai-proto", "cloudai-e2e"],
            &[
                ("cloudai-scheduler", &["cloudai-model", "thiserror", "insta(dev)"]),
                ("cloudai-e2e", &["cloudai-proto(dev)", "anyhow"]),
            ],
            &[],
        );
    }

    #[test]
    fn an_arrow_upwards_is_found() {
        check_text(
            &["cloudai-master-core", "cloudai-scheduler"],
            &[("cloudai-scheduler", &["cloudai-master-core"])],
            &["cloudai-scheduler: uses cloudai-master-core: the dependency law has no such arrow"],
        );
    }

    #[test]
    fn an_arrow_between_master_and_worker_is_found_in_tests_and_build_scripts_too() {
        check_text(
            &["cloudai-master", "cloudai-worker"],
            &[
                ("cloudai-master", &["cloudai-worker(dev)"]),
                ("cloudai-worker", &["cloudai-master(build)"]),
            ],
            &[
                "cloudai-master: uses cloudai-worker: the dependency law has no such arrow, also \
                 for tests",
                "cloudai-worker: uses cloudai-master: the dependency law has no such arrow",
            ],
        );
    }

    #[test]
    fn nothing_uses_a_roof() {
        check_text(
            &["cloudai-master", "cloudai-e2e"],
            &[("cloudai-master", &["cloudai-e2e(dev)"])],
            &["cloudai-master: uses cloudai-e2e: the dependency law has no such arrow, also for \
               tests"],
        );
    }

    #[test]
    fn a_crate_from_outside_that_the_law_does_not_name_is_found() {
        check_text(
            &["cloudai-api"],
            &[("cloudai-api", &["serde", "tokio"])],
            &["cloudai-api: uses tokio: from outside it may use only serde, utoipa"],
        );
    }

    #[test]
    fn what_a_pure_crate_links_deep_down_is_found() {
        check_text(
            &["cloudai-model"],
            &[("cloudai-model", &["thiserror"]), ("thiserror", &["serde"])],
            &["cloudai-model: is pure, but links serde"],
        );
    }

    #[test]
    fn a_crate_without_a_law_is_found() {
        check_text(
            &["cloudai-misc"],
            &[],
            &["cloudai-misc: is not in the dependency law: add it to xtask/src/tidy/law.rs on \
               purpose"],
        );
    }
}
