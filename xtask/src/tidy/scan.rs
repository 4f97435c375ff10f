//! Just enough of Rust's grammar to count: code apart from comments and literals, functions and
//! test modules with their lines.
//!
//! It judges nothing. Read next: `source.rs`, which does.

/// A Rust source in two texts of equal lines; in each, what belongs to the other is blank.
pub(super) struct Source {
    /// Code, with the inside of literals blank.
    pub(super) code: String,
    /// Comments.
    pub(super) comments: String,
    /// For each line whether it lies within a literal: data, such as an expected output.
    data: Vec<bool>,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    /// Where it begins, from 1.
    pub(super) line: usize,
    /// From `fn` to its last bracket, without lines of data.
    pub(super) lines: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Code,
    Comment,
    Literal,
}

impl Source {
    /// Takes a source apart.
    pub(super) fn parse(text: &str) -> Self {
        let signs: Vec<char> = text.chars().collect();
        let mut source = Self { code: String::new(), comments: String::new(), data: Vec::new() };
        let mut at = 0;
        while at < signs.len() {
            let (part, end) = next_part(&signs, at);
            let end = end.min(signs.len());
            for &sign in &signs[at..end] {
                let keep = |is: bool| if is || sign == '\n' { sign } else { ' ' };
                source.code.push(keep(part == Part::Code));
                source.comments.push(keep(part == Part::Comment));
            }
            at = end;
        }
        let lines = source.code.lines().zip(source.comments.lines()).zip(text.lines());
        source.data = lines
            .map(|((code, comment), line)| {
                let is_blank = |text: &str| text.trim().is_empty();
                is_blank(code) && is_blank(comment) && !is_blank(line)
            })
            .collect();
        source
    }

    /// Whether a line, counted from 1, lies within a literal.
    pub(super) fn is_data(&self, line: usize) -> bool {
        self.data.get(line - 1).copied().unwrap_or(false)
    }

    /// Every function with a body, nested ones too.
    pub(super) fn functions(&self) -> Vec<Function> {
        let signs: Vec<char> = self.code.chars().collect();
        let mut functions = Vec::new();
        let mut at = 0;
        while at < signs.len() {
            let end = word_end(&signs, at);
            if signs[at..end].iter().collect::<String>() == "fn"
                && let Some(mut function) = function(&signs, at, end)
            {
                let lines = function.line..function.line + function.lines;
                function.lines -= lines.filter(|&line| self.is_data(line)).count();
                functions.push(function);
            }
            at = end.max(at + 1);
        }
        functions
    }

    /// How many lines stand outside of `#[cfg(test)] mod … { … }`.
    pub(super) fn lines_without_tests(&self) -> usize {
        const MARK: &str = "#[cfg(test)]";
        let mut lines = self.code.lines().count();
        let mut rest = self.code.as_str();
        while let Some(start) = rest.find(MARK) {
            let from = &rest[start..];
            let signs: Vec<char> = from.chars().collect();
            rest = &from[MARK.len()..];
            let is_module = rest.trim_start().trim_start_matches("pub ").starts_with("mod ");
            if let (true, Some(open)) = (is_module, body_start(&signs, MARK.len())) {
                let close = close_of(&signs, open);
                lines -= lines_in(&signs[..=close]);
                let taken: usize = signs[..=close].iter().map(|sign| sign.len_utf8()).sum();
                rest = &from[taken..];
            }
        }
        lines
    }
}

/// What begins at `at`, and where it ends.
fn next_part(signs: &[char], at: usize) -> (Part, usize) {
    let sign = |offset: usize| signs.get(at + offset).copied();
    match (signs[at], sign(1)) {
        ('/', Some('/')) => (Part::Comment, find(signs, at, '\n')),
        ('/', Some('*')) => (Part::Comment, block_comment_end(signs, at)),
        ('"', _) => (Part::Literal, string_end(signs, at)),
        ('\'', Some('\\')) => (Part::Literal, find(signs, at + 3, '\'') + 1),
        ('\'', Some(_)) if sign(2) == Some('\'') => (Part::Literal, at + 3),
        (first, _) if first.is_alphanumeric() || first == '_' => {
            let end = word_end(signs, at);
            let word: String = signs[at..end].iter().collect();
            let raw = ["r", "br", "cr"].contains(&word.as_str());
            match raw.then(|| raw_string_end(signs, end)).flatten() {
                Some(end) => (Part::Literal, end),
                None => (Part::Code, end),
            }
        }
        _ => (Part::Code, at + 1),
    }
}

fn find(signs: &[char], from: usize, wanted: char) -> usize {
    let rest = signs.get(from..).unwrap_or_default();
    rest.iter().position(|&sign| sign == wanted).map_or(signs.len(), |index| from + index)
}

fn word_end(signs: &[char], at: usize) -> usize {
    let word = signs[at..].iter().take_while(|sign| sign.is_alphanumeric() || **sign == '_');
    at + word.count()
}

fn block_comment_end(signs: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    while at < signs.len() {
        match (signs[at], signs.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    break;
                }
            }
            _ => at += 1,
        }
    }
    at
}

fn string_end(signs: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < signs.len() {
        match signs[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// The end of `#…#"…"#…#` from its first sign; `None` when it is none.
fn raw_string_end(signs: &[char], start: usize) -> Option<usize> {
    let hashes = signs[start..].iter().take_while(|&&sign| sign == '#').count();
    let mut at = start + hashes;
    if signs.get(at) != Some(&'"') {
        return None;
    }
    loop {
        at = find(signs, at + 1, '"');
        if at == signs.len() {
            return Some(at);
        }
        let closing = signs[at + 1..].iter().take(hashes).take_while(|&&sign| sign == '#');
        if closing.count() == hashes {
            return Some(at + 1 + hashes);
        }
    }
}

/// The function whose `fn` stands at `start..end`; `None` for a type or one without a body.
fn function(signs: &[char], start: usize, end: usize) -> Option<Function> {
    let blanks = signs[end..].iter().take_while(|sign| sign.is_whitespace()).count();
    let name_start = end + blanks;
    let name: String = signs[name_start..word_end(signs, name_start)].iter().collect();
    if name.is_empty() {
        return None;
    }
    let open = body_start(signs, name_start)?;
    let close = close_of(signs, open);
    Some(Function {
        name,
        line: lines_in(&signs[..=start]),
        lines: lines_in(&signs[start..=close]),
    })
}

/// The bracket that opens the body of what begins before `from`.
fn body_start(signs: &[char], from: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (index, &sign) in signs.iter().enumerate().skip(from) {
        match sign {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(index),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

fn close_of(signs: &[char], open: usize) -> usize {
    let mut depth = 0_usize;
    for (index, &sign) in signs.iter().enumerate().skip(open) {
        match sign {
            '{' => depth += 1,
            '}' if depth == 1 => return index,
            '}' => depth -= 1,
            _ => {}
        }
    }
    signs.len() - 1
}

fn lines_in(signs: &[char]) -> usize {
    1 + signs.iter().filter(|&&sign| sign == '\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        for (text, code) in [
            ("a // {\nb", "a     \nb"),
            ("a /* { /* */ } */ b", "a                 b"),
            (r#"x("{\"}", b"{")"#, "x(      , b   )"),
            ("r#\"\"{\"# b", "        b"),
            ("'{' '\\'' 'a", "         'a"),
            ("r#fn 'static {", "r#fn 'static {"),
        ] {
            assert_eq!(Source::parse(text).code, code, "{text}");
        }
        assert_eq!(Source::parse("a // b").comments, "  // b");
    }

    #[test]
    fn functions_are_found_with_their_lines() {
        let text = "fn a() -> [u8; 2] {\n  \"}\";\n}\ntrait T {\n  fn b(&self);\n  \
                    fn c(f: fn(u8)) { d() }\n}\n";
        let got = Source::parse(text).functions();
        assert_eq!(
            got,
            [
                Function { name: "a".into(), line: 1, lines: 3 },
                Function { name: "c".into(), line: 6, lines: 1 },
            ]
        );
    }

    #[test]
    fn test_modules_do_not_count() {
        let text = "//! ü\nfn a() {}\n\n#[cfg(test)]\nmod tests {\n    fn b() {\n    }\n}\n";
        assert_eq!(Source::parse(text).lines_without_tests(), 3);
        let text = "#[cfg(test)]\nfn only_tests() {\n}\n#[cfg(test)]\nmod tests;\n";
        assert_eq!(Source::parse(text).lines_without_tests(), 5);
    }
}
