//! Pods wired by Debian's CNI plugins, by a server in a network namespace of its own: nothing on the machine changes.

use std::path::Path;
use std::process::Command;

use reeve_engine::engine::{ContainerConfig, Engine as _, Sandbox, SandboxConfig};

use crate::bed::{Bed, eventually, log_text};
use crate::containerd::PLUGINS;
use crate::killed::Server;

/// Addresses of the pods.
const SUBNET: &str = "10.213.78.0/24";
/// The link of the server's namespace that joins them.
const BRIDGE: &str = "rvwired0";

pub(crate) async fn pods_reach_each_other() {
    let missing: Vec<&str> = ["bridge", "host-local", "loopback"]
        .into_iter()
        .filter(|plugin| !Path::new(PLUGINS).join(plugin).is_file())
        .collect();
    if !missing.is_empty() {
        println!("SKIPPED: needs containernetworking-plugins; {missing:?} is missing");
        return;
    }
    let bed = Bed::new().await;
    let (dir, image) = (bed.dir().to_owned(), bed.engine.images().get("busybox").unwrap().unwrap().id);
    let addresses = dir.join("addresses");
    std::fs::create_dir(dir.join("net.d")).unwrap();
    let network = serde_json::json!({"cniVersion": "1.0.0", "name": "reeve-wired", "plugins": [
        {"type": "bridge", "bridge": BRIDGE, "isGateway": true, "ipMasq": false,
         "ipam": {"type": "host-local", "ranges": [[{"subnet": SUBNET}]], "routes": [{"dst": "0.0.0.0/0"}],
                  "dataDir": addresses}},
        {"type": "loopback"}]});
    std::fs::write(dir.join("net.d/10-wired.conflist"), network.to_string()).unwrap();
    let start = || {
        let mut command = Command::new("unshare");
        // Its streaming server listens on the loopback, which is down at first.
        command.args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]);
        command.arg(std::env::current_exe().unwrap());
        command
    };
    let (server, engine) = Server::start_by(start(), &dir).await;
    let config = |name: &str| SandboxConfig {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        uid: format!("uid-{name}"),
        log_dir: dir.join("logs"),
        ..SandboxConfig::default()
    };
    let script = |pod: &Sandbox, text: &str| ContainerConfig {
        name: pod.config.name.clone(),
        image: image.clone(),
        command: ["sh", "-c", text].map(str::to_owned).to_vec(),
        log_path: dir.join("logs").join(format!("{}.log", pod.config.name)),
        ..ContainerConfig::default()
    };
    let serving = engine.run_pod_sandbox(config("serving")).await.unwrap();
    let asking = engine.run_pod_sandbox(config("asking")).await.unwrap();
    let address = serving.ips[0].to_string();
    assert!(address.starts_with("10.213.78.") && serving.ips != asking.ips, "{:?} {:?}", serving.ips, asking.ips);
    let id = engine.create_container(&serving.id, script(&serving, "nc -l -p 5000 -e echo hello; sleep 1000")).await;
    engine.start_container(&id.unwrap()).await.unwrap();
    let text = format!(
        "until nc {address} 5000 2>/dev/null; do sleep 0.05; done; ip route | grep -c default; \
         ip addr show lo | grep -c 127.0.0.1; ip addr show eth0 | grep -c {own}/24; echo through; sleep 1000",
        own = asking.ips[0]
    );
    let config = script(&asking, &text);
    let id = engine.create_container(&asking.id, config.clone()).await.unwrap();
    engine.start_container(&id).await.unwrap();
    eventually("the other pod answers", || log_text(&config.log_path).ends_with("through\n")).await;
    assert_eq!(log_text(&config.log_path), "hello\n1\n1\n1\nthrough\n");
    engine.remove_pod_sandbox(&serving.id).await.unwrap();
    engine.remove_pod_sandbox(&asking.id).await.unwrap();
    let kept = std::fs::read_dir(addresses.join("reeve-wired")).unwrap().flatten().map(|entry| entry.file_name());
    let taken: Vec<_> = kept.filter(|name| name.to_string_lossy().starts_with("10.")).collect();
    assert!(taken.is_empty(), "addresses are given back: {taken:?}");
    drop((server, engine));
    assert!(!Path::new("/sys/class/net").join(BRIDGE).exists(), "the machine has never had it");
    bed.close().await;
}
