//! Our engine behind its socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use reeve_api::clock::RealClock;
use reeve_cri::cni::CniConfig;
use reeve_cri::server::{CriConfig, CriServer, bind};
use reeve_engine::engine::SharedEngine;

use crate::bed::Bed;
use crate::{client, prove_all};

/// Serves an engine on a socket in its folder; pods have their loopback, and the network in `net.d` if there is one.
pub(crate) async fn server(engine: SharedEngine, dir: &Path) -> (CriServer, PathBuf) {
    let cri = dir.join("cri");
    let (conf_dir, bin_dirs) = (dir.join("net.d"), vec![PathBuf::from(crate::containerd::PLUGINS)]);
    let config = CriConfig {
        engine,
        cni: CniConfig { conf_dir, bin_dirs, record_dir: cri.join("networks") },
        dir: cri,
        cdi_dirs: vec![dir.join("cdi")],
        clock: RealClock::shared(),
        version: "0.0.0".to_owned(),
    };
    let streams = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = CriServer::new(config, streams).await.unwrap();
    let socket = dir.join("engine.sock");
    server.serve(bind(&socket).unwrap()).unwrap();
    (server, socket)
}

pub(crate) async fn keeps_every_promise() {
    let bed = Bed::new().await;
    let (server, socket) = server(Arc::new(bed.engine.clone()), bed.dir()).await;
    let engine = client(&socket, bed.dir()).await;
    prove_all(&engine, bed.dir()).await;
    drop(engine);
    server.stop().await;
    bed.close().await;
}
