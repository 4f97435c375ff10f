//! Links in the documents lead somewhere: to a file that is there, to a heading that is there.
//!
//! Addresses on the network are not asked. Code blocks are not read.

use super::Violation;

/// Every link in a Markdown file to a path or heading that does not exist.
pub(super) fn check(path: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<Violation> {
    let is_markdown = std::path::Path::new(path).extension().is_some_and(|end| end == "md");
    if !is_markdown {
        return Vec::new();
    }
    let headings = headings(text);
    let mut violations = Vec::new();
    for (line, target) in links(text) {
        let place = format!("{path}:{line}");
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        if file.is_empty() {
            if !headings.iter().any(|heading| heading == anchor) {
                violations.push(Violation::new(place, format!("no heading is called #{anchor}")));
            }
        } else if !join(path, file).is_some_and(|path| exists(&path)) {
            violations.push(Violation::new(place, format!("links to {file}, which is not there")));
        }
    }
    violations
}

/// The lines outside of code blocks, with their numbers from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_block = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        in_block ^= fence;
        (!in_block && !fence).then_some((index + 1, line))
    })
}

fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        // Every second piece stands between back-quotes.
        for piece in line.split('`').step_by(2) {
            let mut rest = piece;
            while let Some(start) = rest.find("](") {
                rest = &rest[start + 2..];
                let Some(end) = rest.find(')') else { break };
                found.push((number, rest[..end].trim()));
            }
            // The text of a link may be code, which ends this piece after its bracket.
            if let Some(target) = piece.strip_prefix("](").and_then(|rest| rest.split(')').next())
                && found.last() != Some(&(number, target))
                && !found.contains(&(number, target))
            {
                found.push((number, target));
            }
        }
    }
    found
}

/// The anchors that headings get: lower case, blanks become dashes, other signs fall away.
fn headings(text: &str) -> Vec<String> {
    let lines = prose(text).filter(|(_, line)| line.starts_with('#'));
    lines
        .map(|(_, line)| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|sign| sign.is_alphanumeric() || " -_".contains(*sign));
            kept.map(|sign| if sign == ' ' { '-' } else { sign }).collect()
        })
        .collect()
}

/// `file` seen from the folder of `path`; `None` when it leads out of the repository.
fn join(path: &str, file: &str) -> Option<String> {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in file.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(text: &str, want: &[&str]) {
        let exists = |path: &str| ["README.md", "docs", "docs/a.md"].contains(&path);
        let got: Vec<_> =
            check("docs/a.md", text, exists).iter().map(ToString::to_string).collect();
        assert_eq!(got, want, "{text}");
    }

    #[test]
    fn a_link_to_a_file_that_is_not_there_is_found() {
        check_text("See [it](b.md).", &["docs/a.md:1: links to b.md, which is not there"]);
        check_text("\n[`b`](b.md)", &["docs/a.md:2: links to b.md, which is not there"]);
        check_text("[a](a.md) [up](../README.md#x) [here](.) [net](https://example.org)", &[]);
        check_text("[out](../../a.md)", &["docs/a.md:1: links to ../../a.md, which is not there"]);
    }

    #[test]
    fn a_link_to_a_heading_that_is_not_there_is_found() {
        check_text("# The way, in words\n[a](#the-way-in-words)", &[]);
        check_text("# One\n[a](#two)", &["docs/a.md:2: no heading is called #two"]);
    }

    #[test]
    fn code_is_not_read() {
        check_text("```\n[it](b.md)\n```\n`[it](b.md)`", &[]);
    }
}
