//! Sizes, headers and words of the source files.
//!
//! A rule here is one that a reader would feel: a function that leaves the screen, a file that
//! is two subjects, a promise to finish something later. Generated code is not looked at.

use super::Violation;
use super::scan::Source;

const LINE_LEN_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
/// For a function that is one total `match`, named below.
const MATCH_LINES_MAX: usize = 120;
const FILE_LINES_MAX: usize = 800;
const FILE_LINES_WARN: usize = 500;

/// Before a snapshot that its tool writes into one line.
const SNAPSHOT: &str = ", @";

const GENERATED: &str = "proto/src/generated/";

/// Functions that may be longer, by path and name, each with its reason above it.
const LONG_FUNCTIONS: [(&str, &str); 0] = [];

/// Marks of work put off. In two halves, so that this file keeps its own rule.
const LATER_MARKS: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];

/// Code that must not be committed.
const UNFINISHED: [(&str, &str); 4] = [
    ("todo!", "finish it, or take it out"),
    ("unimplemented!", "finish it, or take it out"),
    ("dbg!", "is for the moment of searching"),
    ("#[ignore", "a test that does not run proves nothing: mend it or take it out"),
];

/// Every rule that a file breaks.
pub(super) fn check(path: &str, text: &str) -> Vec<Violation> {
    if path.starts_with(GENERATED) {
        return Vec::new();
    }
    match extension(path) {
        "rs" => check_rust(path, text),
        "toml" if path.ends_with("/Cargo.toml") => check_manifest(path, text),
        "py" | "sh" | "proto" | "toml" | "yml" | "Makefile" | "Dockerfile" | "run" => {
            check_marks(path, text)
        }
        _ => Vec::new(),
    }
}

/// A file that is allowed, but long enough to think about.
pub(super) fn warn(path: &str, text: &str) -> Option<String> {
    if extension(path) != "rs" || path.starts_with(GENERATED) || is_test(path) {
        return None;
    }
    let lines = Source::parse(text).lines_without_tests();
    let long = FILE_LINES_WARN < lines && lines <= FILE_LINES_MAX;
    long.then(|| format!("{path}: {lines} lines; over {FILE_LINES_WARN} it may be two subjects"))
}

fn check_rust(path: &str, text: &str) -> Vec<Violation> {
    let source = Source::parse(text);
    let mut violations = check_marks(path, &source.comments);
    violations.extend(check_header(path, text));
    violations.extend(check_sizes(path, text, &source));
    for (index, line) in source.code.lines().enumerate() {
        for (word, why) in UNFINISHED {
            if line.contains(word) {
                violations.push(at(path, index + 1, format!("{word} in the code: {why}")));
            }
        }
    }
    violations
}

fn check_header(path: &str, text: &str) -> Option<Violation> {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let what = "a module opens with `//!`: what it is for, what it never does, where to read next";
    (!first.starts_with("//!")).then(|| at(path, 1, what))
}

fn check_sizes(path: &str, text: &str, source: &Source) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let length = line.chars().count();
        // What is printed stands as it is printed, also in a snapshot within the line.
        let is_data = source.is_data(index + 1) || line.contains(SNAPSHOT);
        if length > LINE_LEN_MAX && !is_data {
            let what = format!("{length} columns; a line has at most {LINE_LEN_MAX}");
            violations.push(at(path, index + 1, what));
        }
    }
    for function in source.functions() {
        let named = LONG_FUNCTIONS.contains(&(path, function.name.as_str()));
        let most = if named { MATCH_LINES_MAX } else { FUNCTION_LINES_MAX };
        if function.lines > most {
            let what = format!(
                "fn {} has {} lines; at most {most} (a screen)",
                function.name, function.lines
            );
            violations.push(at(path, function.line, what));
        }
    }
    let lines = source.lines_without_tests();
    if lines > FILE_LINES_MAX && !is_test(path) {
        let what = format!("{lines} lines without tests; at most {FILE_LINES_MAX}");
        violations.push(at(path, 1, what));
    }
    violations
}

fn check_marks(path: &str, text: &str) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut words = line.split(|sign: char| !sign.is_alphanumeric() && sign != '_');
        if let Some(mark) = words.find(|word| LATER_MARKS.contains(word)) {
            violations.push(at(path, index + 1, format!("{mark}: do it now, or open an issue")));
        }
    }
    violations
}

fn check_manifest(path: &str, text: &str) -> Vec<Violation> {
    let mut violations = check_marks(path, text);
    let inherits = toml::from_str::<toml::Table>(text).is_ok_and(|manifest| {
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        lints.and_then(toml::Value::as_bool) == Some(true)
    });
    if !inherits {
        violations.push(at(path, 1, "has no `[lints] workspace = true`"));
    }
    violations
}

/// What stands behind the last dot of a path; the name of a file without one.
fn extension(path: &str) -> &str {
    path.rsplit(['/', '.']).next().unwrap_or_default()
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("_tests.rs")
}

fn at(path: &str, line: usize, what: impl Into<String>) -> Violation {
    Violation::new(format!("{path}:{line}"), what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(path: &str, text: &str, want: &[&str]) {
        let got: Vec<_> = check(path, text).iter().map(ToString::to_string).collect();
        assert_eq!(got, want, "{text}");
    }

    fn function_of(lines: usize) -> String {
        format!("//! About.\nfn long() {{\n{}}}\n", "    f();\n".repeat(lines - 2))
    }

    #[test]
    fn a_function_that_leaves_the_screen_is_found() {
        check_text("a.rs", &function_of(FUNCTION_LINES_MAX), &[]);
        let want = "a.rs:2: fn long has 71 lines; at most 70 (a screen)";
        check_text("a.rs", &function_of(FUNCTION_LINES_MAX + 1), &[want]);
    }

    #[test]
    fn a_long_line_is_found_and_letters_count_not_bytes() {
        check_text("a.rs", &format!("//! {}", "ü".repeat(LINE_LEN_MAX - 4)), &[]);
        let want = "a.rs:1: 101 columns; a line has at most 100";
        check_text("a.rs", &format!("//! {}", "x".repeat(LINE_LEN_MAX - 3)), &[want]);
    }

    #[test]
    fn a_long_line_of_expected_output_is_data() {
        let output = "x".repeat(LINE_LEN_MAX + 1);
        check_text("a.rs", &format!("//! A.\nf(r\"\n{output}\n\");"), &[]);
    }

    #[test]
    fn a_long_file_is_found_and_its_tests_do_not_count() {
        let code = |lines: usize| format!("//! About.\n{}", "use a;\n".repeat(lines - 1));
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "use b;\n".repeat(900));
        check_text("a.rs", &(code(FILE_LINES_MAX) + &tests), &[]);
        let want = "a.rs:1: 801 lines without tests; at most 800";
        check_text("a.rs", &(code(FILE_LINES_MAX + 1) + &tests), &[want]);
        check_text("e2e/tests/a.rs", &code(FILE_LINES_MAX + 1), &[]);
        assert!(warn("a.rs", &code(FILE_LINES_WARN)).is_none());
        assert!(warn("a.rs", &code(FILE_LINES_WARN + 1)).is_some());
    }

    #[test]
    fn a_module_without_a_header_is_found() {
        check_text("a.rs", "\n//! About.\n", &[]);
        let want = "a.rs:1: a module opens with `//!`: what it is for, what it never does, where \
                    to read next";
        check_text("a.rs", "// About.\n", &[want]);
    }

    #[test]
    fn unfinished_work_is_found_in_code_and_comments_but_not_in_literals() {
        let mark = LATER_MARKS[0];
        let later = format!("{mark}: do it now, or open an issue");
        check_text("a.rs", &format!("//! A.\n// {mark}: x"), &[&format!("a.rs:2: {later}")]);
        check_text("a.sh", &format!("# {mark}"), &[&format!("a.sh:1: {later}")]);
        check_text("Makefile", &format!("# {mark}"), &[&format!("Makefile:1: {later}")]);
        check_text("a.rs", &format!("//! A.\nf(\"{mark} todo!()\");"), &[]);
        let want = "a.rs:2: todo! in the code: finish it, or take it out";
        check_text("a.rs", "//! A.\nfn f() { todo!() }", &[want]);
        let want = "a.rs:2: #[ignore in the code: a test that does not run proves nothing: mend \
                    it or take it out";
        check_text("a.rs", "//! A.\n#[ignore = \"slow\"]", &[want]);
    }

    #[test]
    fn a_crate_without_the_lints_of_the_workspace_is_found() {
        check_text("a/Cargo.toml", "[lints]\nworkspace = true\n", &[]);
        check_text("a/Cargo.toml", "", &["a/Cargo.toml:1: has no `[lints] workspace = true`"]);
    }

    #[test]
    fn generated_code_is_not_looked_at() {
        check_text("proto/src/generated/cluster.rs", &function_of(500), &[]);
    }
}
