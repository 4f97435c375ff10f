//! The border between wire and model.
