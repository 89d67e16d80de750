//! The last word of an exec or attach, as a `metav1.Status` on the error channel. Pure.

use serde_json::{Value, json};

/// The command ended with code 0, or the stream was closed in order.
pub(crate) fn success() -> Value {
    json!({ "metadata": {}, "status": "Success" })
}

/// The command ended with another code. Source: `k8s.io/kubelet` remotecommand, `NonZeroExitCode`.
pub(crate) fn exit_code(command: &[String], code: i32) -> Value {
    let words = command.join(" ");
    json!({
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": format!(
            "command terminated with non-zero exit code: error executing command [{words}], exit code {code}"
        ),
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    })
}

/// It could not be run, or its end could not be seen.
pub(crate) fn internal_error(message: &str) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "reason": "InternalError",
        "message": format!("Internal error occurred: {message}"),
        "details": { "causes": [{ "message": message }] },
        "code": 500,
    })
}
