//! Commands in containers: answered at once (`ExecSync`), or by a place to connect to.

use std::time::Duration;

use bytes::Bytes;
use reeve_engine::engine::{Container, ContainerState, ExecConfig, OutputStream, SandboxState};
use reeve_proto::cri::{AttachRequest, ExecRequest, ExecSyncRequest, ExecSyncResponse, PortForwardRequest};
use reeve_streaming::remote::{Kind, StreamOptions};
use tokio::io::AsyncReadExt as _;
use tonic::Status;

use super::Shared;
use super::error::{self, Answer};
use super::stream::Wanted;

/// What is kept of each output of a command; the rest is read and dropped. Source: CRI.
const OUTPUT_BYTES_MAX: usize = 16 << 20;
/// What of both together goes into one answer: it must not be larger than a client takes.
const ANSWER_BYTES_MAX: usize = super::MESSAGE_BYTES_MAX - (64 << 10);
/// How long output is waited for that a child of the command may hold open for ever.
const DRAIN_MAX: Duration = Duration::from_secs(5);

impl Shared {
    pub(super) async fn exec_sync(&self, request: ExecSyncRequest) -> Answer<ExecSyncResponse> {
        let found = self.running(&request.container_id).await?;
        let timeout = u64::try_from(request.timeout).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let config = ExecConfig { command: request.cmd, stdout: true, stderr: true, timeout, ..ExecConfig::default() };
        let mut session = self.engine.exec(&found.id, config).await.map_err(error::engine)?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let code = {
            let outputs = async {
                tokio::join!(keep(session.stdout.take(), &mut stdout), keep(session.stderr.take(), &mut stderr))
            };
            tokio::pin!(outputs);
            let mut exit = session.exit;
            tokio::select! {
                code = &mut exit => {
                    // Cut off after a while: see DRAIN_MAX.
                    let _ = tokio::time::timeout(DRAIN_MAX, &mut outputs).await;
                    code
                }
                _ = &mut outputs => exit.await,
            }
        };
        let exit_code = code.map_err(error::engine)?;
        stdout.truncate(ANSWER_BYTES_MAX);
        stderr.truncate(ANSWER_BYTES_MAX.saturating_sub(stdout.len()));
        Ok(ExecSyncResponse { stdout: Bytes::from(stdout), stderr: Bytes::from(stderr), exit_code })
    }

    pub(super) async fn exec(&self, request: ExecRequest) -> Answer<String> {
        let ExecRequest { container_id, cmd, tty, stdin, stdout, stderr } = request;
        let found = self.running(&container_id).await?;
        if cmd.is_empty() {
            return Err(Status::invalid_argument("missing cmd"));
        }
        let options = StreamOptions { command: cmd, stdin, stdout, stderr, tty };
        self.offer("exec", Wanted::Remote { container: found.id, kind: Kind::Exec, options: checked(options)? })
    }

    pub(super) async fn attach(&self, request: AttachRequest) -> Answer<String> {
        let AttachRequest { container_id, stdin, tty, stdout, stderr } = request;
        let found = self.running(&container_id).await?;
        let options = StreamOptions { command: Vec::new(), stdin, stdout, stderr, tty };
        self.offer("attach", Wanted::Remote { container: found.id, kind: Kind::Attach, options: checked(options)? })
    }

    pub(super) async fn port_forward(&self, request: PortForwardRequest) -> Answer<String> {
        let found = self.sandbox(&request.pod_sandbox_id).await?;
        if found.state != SandboxState::Ready {
            return Err(Status::failed_precondition(format!("sandbox container {:?} is not running", found.id)));
        }
        self.offer("portforward", Wanted::Ports { sandbox: found.id })
    }

    fn offer(&self, verb: &str, wanted: Wanted) -> Answer<String> {
        let url = self.streams.offer(verb, wanted);
        url.ok_or_else(|| Status::resource_exhausted("maximum number of in-flight requests exceeded"))
    }

    async fn running(&self, id: &str) -> Answer<Container> {
        let found = self.container(id).await?;
        if matches!(found.state, ContainerState::Running { .. }) {
            return Ok(found);
        }
        let state = crate::convert::container::state(&found.state).as_str_name();
        Err(Status::failed_precondition(format!("container is in {state} state")))
    }
}

/// Refuses what no session can be. Words of `k8s.io/cri-streaming`.
fn checked(options: StreamOptions) -> Answer<StreamOptions> {
    if options.tty && options.stderr {
        return Err(Status::invalid_argument("tty and stderr cannot both be true"));
    }
    if !options.has_stream() {
        return Err(Status::invalid_argument("one of `stdin`, `stdout`, or `stderr` must be set"));
    }
    Ok(options)
}

/// Reads a stream to its end and keeps the beginning.
async fn keep(stream: Option<OutputStream>, into: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let mut chunk = vec![0; 32 << 10];
    while let Ok(len) = stream.read(&mut chunk).await {
        if len == 0 {
            return;
        }
        let room = OUTPUT_BYTES_MAX.saturating_sub(into.len());
        into.extend_from_slice(chunk.get(..len.min(room)).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_endless_output_the_beginning_is_kept() {
        let mut kept = vec![7; OUTPUT_BYTES_MAX - 3];
        let stream: OutputStream = Box::pin(std::io::Cursor::new(vec![1; 100_000]));
        keep(Some(stream), &mut kept).await;
        assert_eq!((kept.len(), &kept[kept.len() - 4..]), (OUTPUT_BYTES_MAX, &[7, 1, 1, 1][..]));
    }

    #[test]
    fn a_session_has_a_stream_and_a_terminal_has_one_output() {
        let of = |tty, stderr| StreamOptions { tty, stderr, ..StreamOptions::default() };
        assert!(checked(of(true, true)).is_err() && checked(of(true, false)).is_err());
        assert!(checked(of(false, true)).is_ok());
    }
}
