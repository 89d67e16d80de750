//! What went wrong, in kubectl's words. Everything is printed once, by `main`, and ends with exit code 1.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause};

/// An error of a verb.
#[derive(Debug)]
pub(crate) enum CliError {
    /// The server refused; its status. Printed as `Error from server (Reason): message`.
    Server(Box<Status>),
    /// The server cannot be reached. Printed as it is.
    Unreachable(String),
    /// Anything else. Printed behind `error: `.
    Plain(String),
    /// Several independent failures, printed one after the other.
    Many(Vec<CliError>),
    /// Nothing to print; a verb that has said everything already, or a command's own exit code.
    Exit(u8),
}

impl CliError {
    /// An error of our own.
    pub(crate) fn plain(message: impl Into<String>) -> Self {
        Self::Plain(message.into())
    }

    /// Whether the server said that the object does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Server(status) if status.reason.as_deref() == Some("NotFound"))
    }

    /// Whether the server said that the object changed meanwhile.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Server(status) if status.reason.as_deref() == Some("Conflict"))
    }

    /// Says where the object came from, as kubectl does: `error when creating "app.yaml": …`.
    #[must_use]
    pub(crate) fn while_doing(self, verb: &str, source: &str) -> Self {
        self.framed(&format!("error when {verb} {source:?}: "))
    }

    /// The same error with more words before its own.
    #[must_use]
    pub(crate) fn framed(self, words: &str) -> Self {
        match self {
            Self::Server(mut status) => {
                status.message = Some(format!("{words}{}", status.message.unwrap_or_default()));
                Self::Server(status)
            }
            Self::Plain(message) => Self::Plain(format!("{words}{message}")),
            other => other,
        }
    }

    /// The server's words as part of an error of our own, `failed to create token: …`; unchanged behind nothing.
    #[must_use]
    pub(crate) fn behind(self, words: &str) -> Self {
        match self {
            Self::Server(status) if !words.is_empty() => {
                Self::Plain(format!("{words}{}", status.message.unwrap_or_default()))
            }
            other => other,
        }
    }

    /// Several failures as one; `Ok` when there are none.
    pub(crate) fn all(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => errors.pop().map_or(Ok(()), Err),
            _ => Err(Self::Many(errors)),
        }
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Exit(code) => *code,
            _ => 1,
        }
    }
}

impl std::error::Error for CliError {}

impl std::fmt::Display for CliError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Server(status) => f.write_str(&server_message(status)),
            Self::Unreachable(message) => f.write_str(message),
            Self::Plain(message) => write!(f, "error: {message}"),
            Self::Exit(_) => Ok(()),
            Self::Many(errors) => {
                for (index, error) in errors.iter().enumerate() {
                    if index > 0 {
                        f.write_str("\n")?;
                    }
                    error.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

fn server_message(status: &Status) -> String {
    let reason = status.reason.as_deref().unwrap_or_default();
    let message = status.message.as_deref().unwrap_or_default();
    match reason {
        "Invalid" => invalid_message(status),
        "Unauthorized" => "error: You must be logged in to the server (Unauthorized)".to_owned(),
        "" => format!("Error from server: {message}"),
        _ => format!("Error from server ({reason}): {message}"),
    }
}

fn invalid_message(status: &Status) -> String {
    let Some(details) = &status.details else { return "The request is invalid".to_owned() };
    let kind = details.kind.as_deref().unwrap_or_default();
    let name = details.name.as_deref().unwrap_or_default();
    let head = if kind.is_empty() && name.is_empty() {
        "The request is invalid".to_owned()
    } else {
        format!("The {kind} {name:?} is invalid")
    };
    let line = |cause: &StatusCause| {
        let message = cause.message.as_deref().unwrap_or_default();
        match cause.field.as_deref() {
            Some(field) if !field.is_empty() => format!("{field}: {message}"),
            _ => message.to_owned(),
        }
    };
    match details.causes.as_deref().unwrap_or_default() {
        [] => match status.message.as_deref() {
            Some(message) if !message.is_empty() => format!("{head}: {message}"),
            _ => head,
        },
        [cause] => format!("{head}: {}", line(cause)),
        causes => {
            let lines: Vec<String> = causes.iter().map(|cause| format!("* {}", line(cause))).collect();
            format!("{head}: \n{}", lines.join("\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: serde_json::Value) -> String {
        CliError::Server(Box::new(serde_json::from_value(status).expect("a status"))).to_string()
    }

    #[test]
    fn a_refusal_names_its_reason() {
        let status = serde_json::json!({"reason": "NotFound", "message": "pods \"x\" not found"});
        assert_eq!(error(status), "Error from server (NotFound): pods \"x\" not found");
    }

    #[test]
    fn an_invalid_object_lists_its_causes() {
        let causes = |causes: serde_json::Value| {
            serde_json::json!({"reason": "Invalid", "message": "ignored",
            "details": {"kind": "Pod", "name": "p", "causes": causes}})
        };
        let one = serde_json::json!([{"field": "spec.a", "message": "Required value"}]);
        assert_eq!(error(causes(one)), "The Pod \"p\" is invalid: spec.a: Required value");
        let two = serde_json::json!([{"field": "a", "message": "x"}, {"field": "b", "message": "y"}]);
        assert_eq!(error(causes(two)), "The Pod \"p\" is invalid: \n* a: x\n* b: y");
    }
}
