//! Why an expression has no value.

/// Why an expression has no value. All but [`EvalError::Message`] end the evaluation; a message can be absorbed by
/// `&&`, `||` and the macros made of them. Shown, it is what Kubernetes tells the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The expression went wrong: a missing key, a division by zero, …
    #[error("{0}")]
    Message(String),
    /// It cost more than it may, or was about to take more memory than that allows.
    #[error("operation cancelled: actual cost limit exceeded")]
    CostLimit,
    /// It did more work than its cost accounts for.
    #[error("operation interrupted")]
    Interrupted,
}

impl EvalError {
    pub(crate) fn message(text: impl Into<String>) -> Self {
        Self::Message(text.into())
    }

    pub(crate) fn no_such_overload() -> Self {
        Self::message("no such overload")
    }

    /// Whether the cost limit ended it.
    #[must_use]
    pub fn is_cost_limit(&self) -> bool {
        *self == Self::CostLimit
    }
}
