//! Errors: one table of codes, each with its HTTP status.

use serde::{Deserialize, Serialize};

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:literal;)*) => {
        /// What went wrong, for programs. Codes are a promise: none changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
            /// A code of a newer master, read by an older client. Never sent.
            #[serde(other)]
            Unknown,
        }

        impl ErrorCode {
            /// Every code that a master sends.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code as it stands in JSON.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Unknown => "unknown",
                }
            }

            /// The HTTP status that it is sent with.
            pub const fn http_status(self) -> u16 {
                match self {
                    $(Self::$variant => $status,)*
                    Self::Unknown => 500,
                }
            }
        }
    };
}

error_codes! {
    /// A field of the request is out of bounds or malformed; `field` names it.
    InvalidField = "invalid_field", 400;
    /// The request is no JSON, lacks a field, or has one that is not known.
    InvalidRequest = "invalid_request", 400;
    /// No such path in the API.
    NotFound = "not_found", 404;
    /// No such task.
    TaskNotFound = "task_not_found", 404;
    /// No such job.
    JobNotFound = "job_not_found", 404;
    /// No such worker; also when a submit names one, and then nothing was created.
    WorkerNotFound = "worker_not_found", 404;
    /// The task has no attempt with this number.
    AttemptNotFound = "attempt_not_found", 404;
    /// The task has no such output file.
    FileNotFound = "file_not_found", 404;
    /// The path exists, but not with this method.
    MethodNotAllowed = "method_not_allowed", 405;
    /// The request contradicts what is: the same request id came with another content.
    Conflict = "conflict", 409;
    /// The body is larger than the master takes.
    TooLarge = "too_large", 413;
    /// The master failed; its log says more.
    Internal = "internal", 500;
    /// The master has as much to do as it takes; nothing was done. `Retry-After` says when.
    Busy = "busy", 503;
    /// The master starts or stops; nothing was done.
    NotReady = "not_ready", 503;
    /// The store has no room; nothing was accepted, what runs goes on.
    StorageFull = "storage_full", 507;
}

impl ErrorCode {
    /// Whether the same request may succeed a little later without anybody doing anything.
    pub const fn is_temporary(self) -> bool {
        matches!(self, Self::Busy | Self::NotReady)
    }
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What happened, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorDetail {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what happened and why.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The field of the request that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl ErrorBody {
    /// An error without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { error: ErrorDetail { code, message: message.into(), hint: None, field: None } }
    }

    /// The same error with what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.error.hint = Some(hint.into());
        self
    }

    /// The same error with the field that is wrong.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.error.field = Some(field.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_written_by_its_name_and_has_an_error_status() {
        for code in ErrorCode::ALL {
            let text = serde_json::to_string(code).unwrap();
            assert_eq!(text, format!("\"{}\"", code.name()));
            assert_eq!(serde_json::from_str::<ErrorCode>(&text).unwrap(), *code);
            assert!((400..600).contains(&code.http_status()));
        }
    }

    #[test]
    fn a_code_of_a_newer_master_is_still_an_error() {
        let body: ErrorBody =
            serde_json::from_str(r#"{"error":{"code":"quota","message":"no","more":1}}"#).unwrap();
        assert_eq!(body.error.code, ErrorCode::Unknown);
    }
}
