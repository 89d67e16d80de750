//! The last word of an exec or attach, as a `metav1.Status` on the error channel. Pure.

use serde_json::{Value, json};

use super::protocol::Version;

/// The command ended with code 0, or the stream was closed in order.
pub(super) fn success() -> Value {
    json!({ "metadata": {}, "status": "Success" })
}

/// The command ended with another code. Source: `NonZeroExitCode` of `k8s.io/cri-streaming`; in version 5 the code has
/// been read and is told anew.
pub(super) fn exit_code(command: &[String], code: i32, version: Version) -> Value {
    let why = match version {
        Version::V5 => format!("command terminated with exit code {code}"),
        _ => format!("error executing command [{}], exit code {code}", command.join(" ")),
    };
    json!({
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: {why}"),
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    })
}

/// It could not be run, or its end could not be seen.
pub(super) fn internal_error(message: &str, version: Version) -> Value {
    let told = format!("Internal error occurred: {message}");
    // In version 5 it is the error of an error.
    let told = if version == Version::V5 { format!("Internal error occurred: {told}") } else { told };
    json!({
        "metadata": {},
        "status": "Failure",
        "reason": "InternalError",
        "message": told,
        "details": { "causes": [{ "message": message }] },
        "code": 500,
    })
}
