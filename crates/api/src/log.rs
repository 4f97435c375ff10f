//! A task's log as lines of JSON.

use serde::{Deserialize, Serialize};

use crate::{OutcomeView, TaskStatus};

/// Where a piece of a log comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// The process's standard output.
    Stdout,
    /// The process's standard error.
    Stderr,
    /// Words of CloudAI: how much is missing here, and why. Not part of the process's output.
    Note,
}

/// The query of `GET /tasks/{id}/logs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    /// Go on until the task has ended, over the tries that it may still need. Without it the
    /// answer is what there is now.
    #[serde(default)]
    pub follow: bool,
    /// Only this attempt; the current or last one when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Only this stream (notes come always); both when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<LogStream>,
}

/// One line of the answer. An empty line between them is a sign of life: a following answer has
/// one at least every 15 s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum LogItem {
    /// A piece of the log.
    Line(LogLine),
    /// The last line of every whole answer: one without it was cut off.
    End(LogEnd),
}

/// A piece of the log, exactly as it was written: it ends with a newline only where the process
/// wrote one. Exactly one of `text` and `base64` is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogLine {
    /// Where it comes from.
    pub stream: LogStream,
    /// Which try of the task wrote it.
    pub attempt: u32,
    /// When it was written, by the worker's clock.
    pub at_ms: u64,
    /// The piece, when it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The piece in standard base64 with padding, when it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

/// The end of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogEnd {
    /// Always true.
    pub end: bool,
    /// Where the task stands now.
    pub status: TaskStatus,
    /// How it ended, when it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeView>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_and_the_end_are_told_apart() {
        let piece = r#"{"stream":"stdout","attempt":1,"at_ms":5,"text":"hello\n"}"#;
        let LogItem::Line(line) = serde_json::from_str(piece).unwrap() else { panic!("no line") };
        assert_eq!(line.text.as_deref(), Some("hello\n"));
        assert_eq!(serde_json::to_string(&LogItem::Line(line)).unwrap(), piece);
        let end = r#"{"end":true,"status":"succeeded"}"#;
        let item: LogItem = serde_json::from_str(end).unwrap();
        assert!(matches!(&item, LogItem::End(end) if end.status == TaskStatus::Succeeded));
        assert_eq!(serde_json::to_string(&item).unwrap(), end);
    }
}
