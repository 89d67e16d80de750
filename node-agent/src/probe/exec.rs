//! Commands run in a container: exec probes and hooks.

use std::time::Duration;

use reeve_engine::engine::{EngineError, ExecConfig, OutputStream, SharedEngine};
use tokio::io::AsyncReadExt as _;

use super::Outcome;

/// Most of a command's output that is kept. Source: kubelet `maxReadLength`.
const OUTPUT_MAX: u64 = 10 * 1024;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) code: i32,
    /// Standard output and error.
    pub(crate) output: String,
}

/// Runs a command to its end, or until `limit`.
pub(crate) async fn run_command(
    engine: &SharedEngine,
    container: &str,
    command: &[String],
    limit: Option<Duration>,
) -> Result<Done, EngineError> {
    let config =
        ExecConfig { command: command.to_vec(), stdout: true, stderr: true, timeout: limit, ..ExecConfig::default() };
    let mut session = engine.exec(container, config).await?;
    let (stdout, stderr) = (session.stdout.take(), session.stderr.take());
    let (code, out, err) = tokio::join!(session.exit, drain(stdout), drain(stderr));
    let output = [out, err].concat();
    Ok(Done { code: code?, output: String::from_utf8_lossy(&output).into_owned() })
}

/// Reads a stream to its end, keeping the first part: a full pipe would hold the command up.
async fn drain(stream: Option<OutputStream>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else { return kept };
    if (&mut stream).take(OUTPUT_MAX).read_to_end(&mut kept).await.is_ok() {
        // What is beyond the limit is read and dropped; an error here ends the stream as well.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    kept
}

/// Runs a probe's command.
pub(crate) async fn probe(engine: &SharedEngine, container: &str, command: &[String], limit: Duration) -> Outcome {
    match run_command(engine, container, command, Some(limit)).await {
        Ok(done) if done.code == 0 => Outcome::Success,
        Ok(done) => Outcome::Failure(done.output),
        Err(EngineError::ExecTimeout { .. }) => {
            let words = command.join(" ");
            Outcome::Failure(format!("command timed out: \"{words}\" timed out after {}s", limit.as_secs()))
        }
        Err(error) => Outcome::Unknown(format!("rpc error: {error}")),
    }
}
