//! Amounts as people write them: `2GiB`, `1.5`, `90s`, `1-100%5`, and how they are shown again.
//!
//! Every parser answers with a sentence that says what would be right. Nothing here rounds up or
//! guesses a unit. Read next: `grammar/submit.rs`, where the flags are that use them.

use std::fmt;
use std::str::FromStr;

use cloudai_api::{ArrayRange, Volume};

/// An amount of memory or storage in bytes. Text: a number with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Binary units, and the single letters that Docker users know, which are binary there too.
const BINARY: [(&str, u32); 8] = [
    ("kib", 10),
    ("mib", 20),
    ("gib", 30),
    ("tib", 40),
    ("k", 10),
    ("m", 20),
    ("g", 30),
    ("t", 40),
];

const DECIMAL: [(&str, u32); 4] = [("kb", 3), ("mb", 6), ("gb", 9), ("tb", 12)];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split_unit(text);
        let thousandths = Decimal::parse(number)?;
        let unit = unit.to_ascii_lowercase();
        let factor = match unit.as_str() {
            "" => return Err(format!("{text} of what? Give a unit, for example 2GiB or 512MiB")),
            "b" => 1,
            _ => {
                let binary = BINARY.iter().find(|(name, _)| *name == unit);
                let decimal = DECIMAL.iter().find(|(name, _)| *name == unit);
                match (binary, decimal) {
                    (Some((_, shift)), _) => 1u128 << shift,
                    (_, Some((_, power))) => 10u128.pow(*power),
                    _ => {
                        return Err(format!(
                            "'{unit}' is no unit: use KiB, MiB, GiB, TiB, or kB, MB, GB, TB"
                        ));
                    }
                }
            }
        };
        let bytes = u64::try_from(thousandths.times(factor)).map_err(|_| too_large(text))?;
        if bytes == 0 { Err("must be more than 0".to_owned()) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            let size = 1u64 << shift;
            if self.0 >= size && self.0.is_multiple_of(size) {
                return write!(f, "{}{name}", self.0 / size);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// A span of time in milliseconds. Text: `500ms`, `90s`, `5m`, `2h`, `1d`, also `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub u64);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut rest = text;
        let mut total = 0u128;
        while !rest.is_empty() {
            let (number, tail) = split_unit(rest);
            let end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, after) = tail.split_at(end);
            let number = Decimal::parse(number)?;
            let ms = match unit {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                "" => return Err(format!("{text} of what? Give a unit, for example 90s or 5m")),
                _ => return Err(format!("'{unit}' is no unit of time: use ms, s, m, h or d")),
            };
            total = total.saturating_add(number.times(ms));
            rest = after;
        }
        let ms = u64::try_from(total).map_err(|_| too_large(text))?;
        if ms == 0 { Err("must be more than 0, for example 90s".to_owned()) } else { Ok(Self(ms)) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
            if self.0 >= ms && self.0.is_multiple_of(ms) {
                return write!(f, "{}{name}", self.0 / ms);
            }
        }
        write!(f, "{}ms", self.0)
    }
}

/// A number of cores or GPUs, more than 0, in steps of a thousandth.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Count(pub f64);

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Err("'all' is not taken: say how many, so that they can be placed".to_owned());
        }
        let number = Decimal::parse(text)?;
        let milli = number.times(1_000);
        if milli == 0 {
            return Err("must be more than 0 (at least 0.001)".to_owned());
        }
        u64::try_from(milli)
            .ok()
            .filter(|milli| *milli <= 1 << 50)
            .map(|milli| Self(milli as f64 / 1000.0))
            .ok_or_else(|| too_large(text))
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A decimal number without sign or exponent, in billionths.
struct Decimal {
    billionths: u128,
}

impl Decimal {
    const PLACES: usize = 9;

    fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('-') {
            return Err(format!("{text} is negative: it must be more than 0"));
        }
        let error = || format!("'{text}' is not a number, for example 2 or 1.5");
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let empty = whole.is_empty() && part.is_empty();
        if empty || !digits(whole) || !digits(part) || text.ends_with('.') {
            return Err(error());
        }
        if whole.len() > 20 {
            return Err(too_large(text));
        }
        let kept = &part[..part.len().min(Self::PLACES)];
        let padded = format!("{kept:0<width$}", width = Self::PLACES);
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| error())? };
        let part: u128 = padded.parse().map_err(|_| error())?;
        Ok(Self { billionths: whole * 1_000_000_000 + part })
    }

    /// The number times `factor`, rounded down.
    fn times(&self, factor: u128) -> u128 {
        self.billionths.saturating_mul(factor) / 1_000_000_000
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let number = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+');
    let end = text.find(|c: char| !number(c)).unwrap_or(text.len());
    // `nan` and `inf` have no digits at all: keep them whole for the message.
    if end == 0 { (text, "") } else { (&text[..end], text[end..].trim_start()) }
}

fn too_large(text: &str) -> String {
    format!("{text} is more than can be counted")
}

/// Reads `1-100`, `1-100%5` or `7`.
pub(crate) fn parse_array(text: &str) -> Result<ArrayRange, String> {
    let error = || format!("'{text}' is no range: give 1-100, or 1-100%5 for at most 5 at once");
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if digits { text.parse::<u32>().ok() } else { None }
    };
    let (range, at_once) = match text.split_once('%') {
        None => (text, None),
        Some((range, at_once)) => (range, Some(number(at_once).ok_or_else(error)?)),
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last) = (number(first).ok_or_else(error)?, number(last).ok_or_else(error)?);
    if first > last {
        return Err(format!("{first}-{last} is empty: the first index is above the last"));
    }
    if at_once == Some(0) {
        return Err("%0 would never run a task: give at least %1".to_owned());
    }
    Ok(ArrayRange { first, last, at_once })
}

/// Reads how often something is done again.
pub(crate) fn parse_times(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "must be a whole number, 0 or more".to_owned())
}

/// Reads `name:/path` or `name:/path:ro`.
pub(crate) fn parse_volume(text: &str) -> Result<Volume, String> {
    let mut parts = text.split(':');
    let (volume, target, mode) = (parts.next().unwrap_or(""), parts.next(), parts.next());
    if volume.contains('/') || volume.starts_with('.') {
        return Err(format!(
            "'{volume}' is a path: a path of the worker is never taken; its administrator \
             declares volumes by name with 'cloudai worker --volume name=/path'"
        ));
    }
    let read_only = match mode {
        None | Some("rw") => false,
        Some("ro") => true,
        Some(other) => return Err(format!("'{other}' is neither ro nor rw")),
    };
    match target {
        Some(target) if target.starts_with('/') && !volume.is_empty() && parts.next().is_none() => {
            Ok(Volume { volume: volume.to_owned(), target: target.to_owned(), read_only })
        }
        _ => Err("give name:/path/in/the/container, with :ro behind it for read-only".to_owned()),
    }
}

/// Reads `KEY=value`; a `KEY` alone takes the value from this environment, as Docker does.
pub(crate) fn parse_env(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) => Err("has no name: give KEY=value".to_owned()),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => match std::env::var(text) {
            Ok(value) => Ok((text.to_owned(), value)),
            Err(_) => Err(format!("{text} is not set here: give {text}=value")),
        },
    }
}

/// Bytes for people: `1.5 GiB`.
pub fn show_bytes(bytes: u64) -> String {
    for (name, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift {
            let tenths = u128::from(bytes) * 10 / (1 << shift);
            let (whole, part) = (tenths / 10, tenths % 10);
            return if part == 0 {
                format!("{whole} {name}")
            } else {
                format!("{whole}.{part} {name}")
            };
        }
    }
    format!("{bytes} B")
}

/// Cores or GPUs for people: up to three places, without needless zeros.
pub(crate) fn show_count(count: f64) -> String {
    let text = format!("{count:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A span of time for people: the two largest units, `1h 5m`, `12s`, `0.4s`.
pub(crate) fn show_span(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..10 => format!("{}.{}s", seconds, ms % 1000 / 100),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: FromStr<Err = String> + fmt::Display>(cases: &[(&str, &str)]) {
        for (text, want) in cases {
            let got = text.parse::<T>().map_or_else(|why| why, |value| value.to_string());
            assert_eq!(got, *want, "{text}");
        }
    }

    #[test]
    fn a_size_has_a_unit() {
        check::<ByteSize>(&[
            ("2GiB", "2GiB"),
            ("512MiB", "512MiB"),
            ("1.5gib", "1536MiB"),
            ("512m", "512MiB"),
            ("2 GiB", "2GiB"),
            ("1kB", "1000B"),
            ("2GB", "1953125KiB"),
            ("100b", "100B"),
            (".5KiB", "512B"),
            ("2", "2 of what? Give a unit, for example 2GiB or 512MiB"),
            ("2XB", "'xb' is no unit: use KiB, MiB, GiB, TiB, or kB, MB, GB, TB"),
            ("-2GiB", "-2 is negative: it must be more than 0"),
            ("0GiB", "must be more than 0"),
            ("0.1B", "must be more than 0"),
            ("NaN", "'NaN' is not a number, for example 2 or 1.5"),
            ("inf", "'inf' is not a number, for example 2 or 1.5"),
            ("", "'' is not a number, for example 2 or 1.5"),
            ("1e3MiB", "'e3mib' is no unit: use KiB, MiB, GiB, TiB, or kB, MB, GB, TB"),
            ("99999999999TiB", "99999999999TiB is more than can be counted"),
        ]);
    }

    #[test]
    fn a_span_has_a_unit() {
        check::<Span>(&[
            ("90s", "90s"),
            ("5m", "5m"),
            ("1h30m", "90m"),
            ("1.5s", "1500ms"),
            ("2d", "2d"),
            ("500ms", "500ms"),
            ("90", "90 of what? Give a unit, for example 90s or 5m"),
            ("90x", "'x' is no unit of time: use ms, s, m, h or d"),
            ("-5m", "-5 is negative: it must be more than 0"),
            ("0s", "must be more than 0, for example 90s"),
            ("", "must be more than 0, for example 90s"),
        ]);
    }

    #[test]
    fn a_count_is_a_number_above_0() {
        check::<Count>(&[
            ("1.5", "1.5"),
            ("4", "4"),
            ("0.001", "0.001"),
            ("0", "must be more than 0 (at least 0.001)"),
            ("0.0001", "must be more than 0 (at least 0.001)"),
            ("-1", "-1 is negative: it must be more than 0"),
            ("NaN", "'NaN' is not a number, for example 2 or 1.5"),
            ("1.", "'1.' is not a number, for example 2 or 1.5"),
            ("all", "'all' is not taken: say how many, so that they can be placed"),
        ]);
    }

    #[test]
    fn an_array_is_a_range_with_a_bound() {
        assert_eq!(
            parse_array("1-100%5"),
            Ok(ArrayRange { first: 1, last: 100, at_once: Some(5) })
        );
        assert_eq!(parse_array("7"), Ok(ArrayRange { first: 7, last: 7, at_once: None }));
        assert!(parse_array("5-1").unwrap_err().contains("is empty"));
        assert!(parse_array("1-5%0").unwrap_err().contains("never run"));
        for text in ["", "-", "1-", "-5", "1-5%", "1-5%x", "+1-5", "1-2-3", "1-99999999999"] {
            assert!(parse_array(text).unwrap_err().contains("is no range"), "{text}");
        }
    }

    #[test]
    fn a_number_of_times_is_whole_and_not_negative() {
        assert_eq!(parse_times("0"), Ok(0));
        for text in ["-1", "1.5", "x", "", "99999999999"] {
            assert!(parse_times(text).unwrap_err().contains("whole number"), "{text}");
        }
    }

    #[test]
    fn a_volume_is_a_name_and_never_a_path() {
        let volume = parse_volume("data:/data:ro").unwrap();
        assert_eq!((volume.volume.as_str(), volume.target.as_str()), ("data", "/data"));
        assert!(volume.read_only);
        for text in ["/etc:/x", "./x:/x", "../x:/x"] {
            assert!(parse_volume(text).unwrap_err().contains("is a path"), "{text}");
        }
        for text in ["", "data", "data:", ":/x", "data:x", "data:/x:ro:z"] {
            assert!(parse_volume(text).unwrap_err().contains("give name:/path"), "{text}");
        }
        assert_eq!(parse_volume("data:/x:rx").unwrap_err(), "'rx' is neither ro nor rw");
    }

    #[test]
    fn amounts_are_shown_short() {
        assert_eq!(show_bytes(1536 << 20), "1.5 GiB");
        assert_eq!(show_bytes(1000), "1000 B");
        assert_eq!(show_count(1.5), "1.5");
        assert_eq!(show_count(2.0), "2");
        assert_eq!(show_span(400), "0.4s");
        assert_eq!(show_span(61_000), "1m 1s");
        assert_eq!(show_span(90_000_000), "1d 1h");
    }
}
