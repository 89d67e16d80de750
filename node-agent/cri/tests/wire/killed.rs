//! A server that is killed: containers run on, and the next one knows them and how they ended.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use reeve_cri::client::CriEngine;
use reeve_engine::engine::{
    ContainerConfig, ContainerState, Engine as _, EngineError, ImageSource, Mount, SandboxConfig, SandboxState,
};

use crate::bed::Bed;
use crate::{client, ours};

/// The hidden argument of the server that dies.
pub(crate) const SERVE: &str = "--serve-until-killed";

/// Serves the engine of a folder for ever.
pub(crate) fn serve(dir: &Path) -> ! {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let bed = Bed::at(dir.to_owned()).await;
        let _server = ours::server(Arc::new(bed.engine.clone()), dir).await;
        std::fs::write(dir.join("serving"), "").unwrap();
        std::future::pending::<()>().await;
    });
    unreachable!("it never ends by itself")
}

/// A server in a process of its own.
pub(crate) struct Server(Child);

impl Server {
    async fn start(dir: &Path) -> (Self, CriEngine) {
        Self::start_by(Command::new(std::env::current_exe().unwrap()), dir).await
    }

    /// The same, by a command that has the program as its last word.
    pub(crate) async fn start_by(mut command: Command, dir: &Path) -> (Self, CriEngine) {
        let _ = std::fs::remove_file(dir.join("serving"));
        let child = command.arg(SERVE).arg(dir).stdin(Stdio::null()).spawn().unwrap();
        let server = Self(child);
        crate::bed::eventually("it serves", || dir.join("serving").exists()).await;
        (server, client(&dir.join("engine.sock"), dir).await)
    }
}

impl Drop for Server {
    /// SIGKILL.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) async fn knows_everything_again() {
    let bed = Bed::new().await;
    let (dir, image) = (bed.dir().to_owned(), bed.engine.images().get("busybox").unwrap().unwrap().id);
    // From now on the engine lives in other processes, and this one only cleans up.
    let (server, engine) = Server::start(&dir).await;
    let config = SandboxConfig { name: "web".to_owned(), log_dir: dir.join("logs"), ..SandboxConfig::default() };
    let pod = engine.run_pod_sandbox(config).await.unwrap();
    drop((server, engine));

    let (server, engine) = Server::start(&dir).await;
    assert_eq!(engine.list_pod_sandboxes().await.unwrap()[0].state, SandboxState::Ready, "killed behind a sandbox");
    // What a server has mounted for a container that does not run yet, the next one does not have.
    let source = ImageSource { image: image.clone(), reference: "busybox".to_owned(), sub_path: "etc".to_owned() };
    let look = Mount { target: "/v".into(), read_only: true, image: Some(source), ..Mount::default() };
    let script = |name: &str, script: &str| ContainerConfig {
        mounts: vec![look.clone()],
        name: name.to_owned(),
        image: image.clone(),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        log_path: dir.join("logs").join(format!("{name}.log")),
        ..ContainerConfig::default()
    };
    let flag = "until [ -e /tmp/go ]; do sleep 0.05; done; exit 9";
    let mut ids = Vec::new();
    for (name, text) in [
        ("created", "test -f /v/passwd && exit 4"),
        ("runs", flag),
        ("ends", "sleep 1; exit 6"),
        ("stopped", "sleep 1000"),
    ] {
        ids.push(engine.create_container(&pod.id, script(name, text)).await.unwrap());
    }
    let [created, runs, ends, stopped] = ids.try_into().unwrap();
    for id in [&runs, &ends, &stopped] {
        engine.start_container(id).await.unwrap();
    }
    // In the middle of a stop.
    let (stopping, id) = (engine.clone(), stopped.clone());
    let stop = tokio::spawn(async move { stopping.stop_container(&id, Duration::from_secs(30)).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop((server, engine));
    let _ = stop.await;
    // "ends" does so while nobody serves.
    tokio::time::sleep(Duration::from_millis(1500)).await;

    let (server, engine) = Server::start(&dir).await;
    let state = async |id: &str| engine.container_status(id).await.unwrap().state;
    assert_eq!(state(&created).await, ContainerState::Created);
    assert!(matches!(state(&runs).await, ContainerState::Running { .. }));
    assert!(
        matches!(state(&ends).await, ContainerState::Exited { exit_code: Some(6), .. }),
        "{:?}",
        state(&ends).await
    );
    engine.stop_container(&stopped, Duration::ZERO).await.unwrap();
    assert!(matches!(state(&stopped).await, ContainerState::Exited { exit_code: Some(137 | 143), .. }));
    engine.start_container(&created).await.unwrap();
    let go = reeve_engine::engine::ExecConfig {
        command: ["touch", "/tmp/go"].map(str::to_owned).to_vec(),
        stdout: true,
        ..reeve_engine::engine::ExecConfig::default()
    };
    assert_eq!(engine.exec(&runs, go).await.unwrap().exit.await.unwrap(), 0);
    for (id, code) in [(&created, 4), (&runs, 9)] {
        for _ in 0..200 {
            if matches!(state(id).await, ContainerState::Exited { .. }) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        let now = state(id).await;
        assert!(matches!(now, ContainerState::Exited { exit_code: Some(own), .. } if own == code), "{now:?}");
    }
    engine.remove_pod_sandbox(&pod.id).await.unwrap();
    drop((server, engine));

    let (server, engine) = Server::start(&dir).await;
    assert!(engine.list_pod_sandboxes().await.unwrap().is_empty(), "what was removed stays so");
    let gone = engine.container_status(&runs).await.expect_err("it is gone");
    assert!(matches!(gone, EngineError::NotFound { .. }), "{gone:?}");
    drop((server, engine));
    bed.close().await;
}
