//! Errors as gRPC tells them. Clients go by the code; the words are for people.

use reeve_engine::engine::EngineError;
use tonic::{Code, Status};

use crate::cni::CniError;
use crate::convert::Refused;

/// What a verb gives.
pub(super) type Answer<T> = Result<T, Status>;

/// An engine's error.
pub(super) fn of(error: &EngineError) -> Status {
    let code = match error {
        EngineError::NotFound { .. } => Code::NotFound,
        EngineError::Invalid(_) => Code::InvalidArgument,
        EngineError::WrongState { .. } => Code::FailedPrecondition,
        EngineError::ExecTimeout { .. } => Code::DeadlineExceeded,
        EngineError::Unsupported(_) => Code::Unimplemented,
        EngineError::Pull { .. } | EngineError::Start(_) | EngineError::Io { .. } => Code::Unknown,
    };
    Status::new(code, error.to_string())
}

/// The same, by value, for `map_err`.
#[allow(clippy::needless_pass_by_value, reason = "who maps an error hands it over")]
pub(super) fn engine(error: EngineError) -> Status {
    of(&error)
}

/// A request that cannot be done as it is.
pub(super) fn refused(refused: Refused) -> Status {
    Status::invalid_argument(refused.0)
}

/// A network that cannot be made or taken away, in containerd's words.
pub(super) fn network(verb: &str, sandbox: &str, error: &CniError) -> Status {
    Status::unknown(format!("failed to {verb} network for sandbox {sandbox:?}: {error}"))
}
