//! The list of the logs and files of a backup: a line for each, with its SHA-256, in the form that
//! `sha256sum --check` reads. Pure. Used by `tree.rs` (written) and `restore.rs` (read).

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use super::TASKS;

/// The file's name in a backup.
pub(super) const LIST: &str = "files.sha256";

/// Characters of a SHA-256 in hexadecimal.
const SUM_LEN: usize = 64;

/// The bytes of a name that would break a line, and what stands for them in a line that begins with
/// a backslash.
const ESCAPES: [(u8, u8); 3] = [(b'\\', b'\\'), (b'\n', b'n'), (b'\r', b'r')];

/// The line for a file, whose path is relative to the backup.
pub(super) fn line(path: &Path, sha256: &str) -> Vec<u8> {
    let name = path.as_os_str().as_bytes();
    let escape_of = |byte: &u8| ESCAPES.iter().find(|(plain, _)| plain == byte);
    let mut line = Vec::with_capacity(SUM_LEN + name.len() + 8);
    if name.iter().any(|byte| escape_of(byte).is_some()) {
        line.push(b'\\');
    }
    line.extend_from_slice(sha256.as_bytes());
    line.extend_from_slice(b"  ");
    for byte in name {
        match escape_of(byte) {
            Some((_, letter)) => line.extend_from_slice(&[b'\\', *letter]),
            None => line.push(*byte),
        }
    }
    line.push(b'\n');
    line
}

/// The path and the SHA-256 of a line without its end; `None` when it is none of ours: each path
/// leads to a file of a task and nowhere else.
pub(super) fn parse(line: &[u8]) -> Option<(PathBuf, &str)> {
    let escaped = line.strip_prefix(b"\\");
    let (sum, rest) = escaped.unwrap_or(line).split_at_checked(SUM_LEN)?;
    let name = rest.strip_prefix(b"  ")?;
    let name = if escaped.is_some() { unescape(name)? } else { name.to_owned() };
    let path = PathBuf::from(OsString::from_vec(name));
    let mut parts = path.components();
    let is_ours = parts.next() == Some(Component::Normal(TASKS.as_ref()))
        && parts.all(|part| matches!(part, Component::Normal(_)));
    Some((path, std::str::from_utf8(sum).ok()?)).filter(|_| is_ours)
}

fn unescape(name: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(name.len());
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => {
                let letter = bytes.next()?;
                ESCAPES.iter().find(|(_, escape)| escape == letter)?.0
            }
            other => *other,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_line_is_read_as_it_was_written_whatever_the_name() {
        for name in ["1/0-a1/log", "1/0-a1/output/a b.txt", "1/x\\n\\", "1/two\nlines\r", "1/ "] {
            let path = Path::new(TASKS).join(name);
            let line = line(&path, SUM);
            let (text, end) = line.split_at(line.len() - 1);
            assert_eq!((end, text.contains(&b'\n')), (b"\n".as_slice(), false), "{name:?}");
            assert_eq!(parse(text), Some((path, SUM)), "{name:?}");
        }
        let odd = Path::new(TASKS).join(OsString::from_vec(vec![b'1', b'/', 0xff]));
        assert_eq!(parse(line(&odd, SUM).trim_ascii_end()), Some((odd, SUM)));
        assert_eq!(
            line(Path::new("tasks/1/a\nb"), SUM),
            format!("\\{SUM}  tasks/1/a\\nb\n").as_bytes()
        );
    }

    #[test]
    fn a_line_that_leads_elsewhere_is_refused() {
        for name in ["/etc/passwd", "tasks/../cloudai.db", "cloudai.db", "", "../tasks/1"] {
            assert_eq!(parse(format!("{SUM}  {name}").as_bytes()), None, "{name}");
        }
        for line in
            ["", "short  tasks/1", &format!("{SUM} tasks/1"), &format!("\\{SUM}  tasks/\\x")]
        {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }
}
