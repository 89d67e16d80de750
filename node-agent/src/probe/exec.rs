//! Commands run in a container: exec probes and hooks.

use std::time::Duration;

use reeve_engine::engine::{EngineError, ExecConfig, OutputStream, SharedEngine};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use super::Outcome;

/// Most of a command's output that is kept. Source: kubelet `maxReadLength`.
const OUTPUT_MAX: u64 = 10 * 1024;
/// How long output is waited for when the command has ended: a child that it left behind may hold the streams open
/// for ever.
const DRAIN_MAX: Duration = Duration::from_secs(2);

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
    let (code, output) = collect(session.exit, stdout, stderr).await;
    Ok(Done { code: code?, output: String::from_utf8_lossy(&output).into_owned() })
}

/// Waits for a command's end while reading what it writes.
async fn collect<T>(
    exit: impl Future<Output = T>,
    stdout: Option<OutputStream>,
    stderr: Option<OutputStream>,
) -> (T, Vec<u8>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let result = {
        let outputs = async { tokio::join!(drain(stdout, &mut out), drain(stderr, &mut err)) };
        tokio::pin!(outputs, exit);
        tokio::select! {
            result = &mut exit => {
                // Cut off after a while: see DRAIN_MAX.
                let _ = timeout(DRAIN_MAX, outputs).await;
                result
            }
            _ = &mut outputs => exit.await,
        }
    };
    out.extend(err);
    (result, out)
}

/// Reads a stream to its end, keeping the first part: a full pipe would hold the command up.
async fn drain(stream: Option<OutputStream>, kept: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    if (&mut stream).take(OUTPUT_MAX).read_to_end(kept).await.is_ok() {
        // What is beyond the limit is read and dropped; an error here ends the stream as well.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn a_child_that_keeps_the_output_open_does_not_hold_the_probe_up() {
        let (mut held, reader) = tokio::io::duplex(64);
        held.write_all(b"not ready").await.unwrap();
        let (code, output) = collect(std::future::ready(1), Some(Box::pin(reader)), None).await;
        assert_eq!((code, output.as_slice()), (1, b"not ready".as_slice()));
        drop(held);
    }
}
