//! A runtime's errors as the engine's. Clients of the engine go by its kinds; the words are the runtime's.

use std::io;

use reeve_engine::engine::EngineError;
use tonic::{Code, Status};

/// What a runtime said when asked to `verb` the thing `id`.
pub(super) fn of(status: &Status, verb: &str, id: &str) -> EngineError {
    let what = match verb.rsplit(' ').next() {
        Some("sandbox") => "sandbox",
        Some("image") => "image",
        _ => "container",
    };
    match status.code() {
        Code::NotFound => EngineError::NotFound { what, id: id.to_owned() },
        Code::InvalidArgument => EngineError::Invalid(status.message().to_owned()),
        Code::Unimplemented => EngineError::Unsupported(status.message().to_owned()),
        code => EngineError::Io {
            step: format!("{verb} {id}"),
            source: io::Error::other(format!("{code:?}: {}", status.message())),
        },
    }
}

/// Stopping what is stopped and removing what is gone succeed.
pub(super) fn unless_gone<T>(result: Result<T, Status>, verb: &str, id: &str) -> Result<(), EngineError> {
    match result {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(of(&status, verb, id)),
    }
}

/// Whether a runtime does not know the verb at all.
pub(super) fn is_unknown_verb(status: &Status) -> bool {
    status.code() == Code::Unimplemented
}
