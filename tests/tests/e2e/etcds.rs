//! A cluster whose state lies in somebody else's etcd: three members over TLS, of which one dies.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use reeve_tests::cluster::Cluster;
use reeve_tests::command::run;
use reeve_tests::machine::Machine;
use reeve_tests::patience::eventually;

/// Of clients and of peers, for each member; the machine's network is the test's own.
const PORTS: [(u16, u16); 3] = [(2379, 2380), (22379, 22380), (32379, 32380)];

/// Ended when dropped.
struct Etcds {
    members: Vec<Child>,
    folder: tempfile::TempDir,
}

impl Drop for Etcds {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.kill(); // one has gone by now
            let _ = member.wait();
        }
    }
}

fn certify(folder: &Path) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).expect("an authority").pem();
    let key = KeyPair::generate().expect("a key");
    let mut own = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    own.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let own_pem = own.signed_by(&key, &Issuer::new(ca, ca_key)).expect("a certificate").pem();
    for (name, text) in [("ca.pem", ca_pem), ("own.pem", own_pem), ("own.key", key.serialize_pem())] {
        std::fs::write(folder.join(name), text).expect("a file");
    }
}

impl Etcds {
    fn start(machine: &Machine) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        certify(folder.path());
        let url = |port| format!("https://127.0.0.1:{port}");
        let all = PORTS.map(|(port, peer)| format!("m{port}={}", url(peer))).join(",");
        let member = |(port, peer): (u16, u16)| {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={}", machine.pin())).args(["etcd", "--name", &format!("m{port}")]);
            command.args(["--initial-cluster", &all, "--client-cert-auth", "--unsafe-no-fsync"]);
            command.args(["--listen-client-urls", &url(port), "--advertise-client-urls", &url(port)]);
            command.args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)]);
            command.arg("--data-dir").arg(folder.path().join(port.to_string()));
            for (flag, file) in [("trusted-ca-file", "ca.pem"), ("cert-file", "own.pem"), ("key-file", "own.key")] {
                command.arg(format!("--{flag}")).arg(folder.path().join(file));
                command.arg(format!("--peer-{flag}")).arg(folder.path().join(file));
            }
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("etcd starts")
        };
        Self { members: PORTS.map(member).into(), folder }
    }

    fn flags(&self) -> Vec<String> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let servers = PORTS.map(|(port, _)| format!("https://127.0.0.1:{port}")).join(",");
        vec![
            format!("--etcd-servers={servers}"),
            format!("--etcd-cafile={}", path("ca.pem")),
            format!("--etcd-certfile={}", path("own.pem")),
            format!("--etcd-keyfile={}", path("own.key")),
        ]
    }
}

#[test]
fn a_cluster_whose_state_lies_in_three_etcds_goes_on_when_one_dies_and_after_it_was_stopped() {
    if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
        return eprintln!("SKIPPED: etcd is not installed (deploy/scripts/deps.sh installs it)");
    }
    let machine = Machine::new();
    let mut etcds = Etcds::start(&machine);
    let cluster = Cluster::prepare_for(&machine, "etcds");
    run(cluster.up_command().args(etcds.flags()), "").done();
    cluster.kubectl(&["create", "configmap", "before", "--from-literal=a=1"]).done();
    etcds.members[0].kill().expect("etcd dies"); // the one that is asked: it is the first
    etcds.members[0].wait().expect("it is dead");
    // That controllers see it says that watches go on.
    eventually("a write", || match cluster.kubectl(&["create", "deployment", "web", "--image=none", "--replicas=0"]) {
        run if run.code == 0 || run.stderr.contains("AlreadyExists") => Ok(()),
        run => Err(run.to_string()),
    });
    eventually("the ReplicaSet", || match cluster.kubectl(&["get", "replicaset", "-l", "app=web", "-o", "name"]) {
        run if run.stdout.contains("replicaset.apps/web-") => Ok(()),
        run => Err(run.to_string()),
    });
    cluster.down().done();
    cluster.up_again().done(); // where its state lies is a lasting choice
    assert_eq!(cluster.kubectl(&["get", "configmap", "before", "-o", "jsonpath={.data.a}"]).text(), "1");
    cluster.kubectl(&["get", "deployment", "web"]).done();
    cluster.down().done();
}
