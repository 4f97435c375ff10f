//! Answers as JSON, exactly as the API gave them.

use serde::Serialize;

use super::Screen;
use crate::failure::Failure;

/// Writes a value as indented JSON with a newline behind it.
pub fn write_json(screen: &mut Screen, value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
    screen.line(text)
}
