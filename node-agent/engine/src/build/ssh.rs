//! `RUN --mount=type=ssh`: a socket at which a command reaches the SSH agent of whoever builds. The agent's own socket
//! is its user's alone; this one belongs to whom the mount says.

use std::path::Path;

use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;

/// Connections at a time; further ones wait in the socket's queue.
const CONNECTIONS_MAX: usize = 16;

/// A socket that leads to an agent, until it is dropped.
pub(super) struct AgentSocket(AbortHandle);

impl AgentSocket {
    /// Listens at `path` and leads to `agent`.
    pub(super) fn open(runtime: &Runtime, path: &Path, agent: &Path) -> std::io::Result<Self> {
        let _inside = runtime.enter();
        let (listener, agent) = (UnixListener::bind(path)?, agent.to_owned());
        let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
        let task = runtime.spawn(async move {
            // Connections that are open end with the socket, too.
            let mut open = tokio::task::JoinSet::new();
            loop {
                let Ok(slot) = std::sync::Arc::clone(&slots).acquire_owned().await else { return };
                let Ok((mut command, _)) = listener.accept().await else { return };
                while open.try_join_next().is_some() {}
                let agent = agent.clone();
                open.spawn(async move {
                    let _slot = slot;
                    if let Ok(mut agent) = UnixStream::connect(&agent).await {
                        let _ = tokio::io::copy_bidirectional(&mut command, &mut agent).await;
                    }
                });
            }
        });
        Ok(Self(task.abort_handle()))
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net;

    use super::*;

    #[test]
    fn what_a_command_says_reaches_the_agent_and_its_answer_the_command() {
        let dir = tempfile::tempdir().unwrap();
        let (agent, path) = (dir.path().join("agent"), dir.path().join("own"));
        let listener = net::UnixListener::bind(&agent).unwrap();
        let echo = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 3];
            stream.read_exact(&mut asked).unwrap();
            stream.write_all(&asked).unwrap();
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let socket = AgentSocket::open(&runtime, &path, &agent).unwrap();
        let mut stream = net::UnixStream::connect(&path).unwrap();
        stream.write_all(b"abc").unwrap();
        let mut answer = [0; 3];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"abc");
        echo.join().unwrap();
        drop(socket);
        let ended = stream.read(&mut answer);
        assert!(matches!(ended, Ok(0) | Err(_)), "it ends with the command");
    }
}
