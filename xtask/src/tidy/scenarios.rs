//! TESTING.md and the end-to-end tests tell of the same scenarios.
//!
//! Each test of `e2e/tests` stands in the document, so that a reader finds the command and the way
//! by hand; and the document names no numbered test (`a06_…`) that is not there.

use std::collections::BTreeSet;

use super::{File, Violation};

const DOCUMENT: &str = "TESTING.md";
const TESTS: &str = "e2e/tests/";

/// Every test without its line in the document, and every line without its test.
pub(super) fn check(files: &[File]) -> Vec<Violation> {
    let Some(document) = files.iter().find(|file| file.path == DOCUMENT) else {
        return vec![Violation::new(DOCUMENT, "is not there")];
    };
    let words: BTreeSet<&str> = words(&document.text).collect();
    let mut violations = Vec::new();
    let mut tests = BTreeSet::new();
    for file in files.iter().filter(|file| file.path.starts_with(TESTS)) {
        for (line, name) in test_names(&file.text) {
            if !words.contains(name) {
                let place = format!("{}:{line}", file.path);
                violations.push(Violation::new(place, format!("{name} is not in {DOCUMENT}")));
            }
            tests.insert(name);
        }
    }
    for name in words.into_iter().filter(|word| is_numbered(word) && !tests.contains(word)) {
        violations.push(Violation::new(DOCUMENT, format!("names {name}, which is no test")));
    }
    violations
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|sign: char| !sign.is_alphanumeric() && sign != '_')
}

/// `a06_task_to_a_worker`: a letter, digits, and an underscore.
fn is_numbered(word: &str) -> bool {
    let digits = word.trim_start_matches(|sign: char| sign.is_ascii_lowercase());
    let name = digits.trim_start_matches(|sign: char| sign.is_ascii_digit());
    word.len() == digits.len() + 1 && name.len() < digits.len() && name.starts_with('_')
}

/// The functions behind `#[test]` and `#[tokio::test]`, with their lines from 1.
fn test_names(text: &str) -> Vec<(usize, &str)> {
    let mut names = Vec::new();
    let mut marked = false;
    for (index, line) in text.lines().map(str::trim).enumerate() {
        marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let after = line.split_once("fn ").filter(|_| marked && !line.starts_with("//"));
        if let Some((_, after)) = after {
            names.extend(words(after).next().map(|name| (index + 1, name)));
            marked = false;
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(document: &str, tests: &str, want: &[&str]) {
        let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
        let files = [file(DOCUMENT, document), file("e2e/tests/a.rs", tests)];
        let got: Vec<_> = check(&files).iter().map(ToString::to_string).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn document_and_tests_agree() {
        check_text("| 1 | `a01_b` |", "#[test]\n// why, fn\nfn a01_b() {}\nfn help() {}", &[]);
        check_text("`x_y` and api_v1 and v1", "#[tokio::test]\nasync fn x_y() {}", &[]);
    }

    #[test]
    fn a_test_that_the_document_does_not_tell_of_is_found() {
        let want = ["e2e/tests/a.rs:2: a01_b is not in TESTING.md"];
        check_text("nothing", "#[test]\nfn a01_b() {}", &want);
    }

    #[test]
    fn a_name_without_a_test_is_found() {
        check_text("`a02_c`", "", &["TESTING.md: names a02_c, which is no test"]);
    }
}
