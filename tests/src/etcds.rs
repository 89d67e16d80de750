//! A cluster of etcd, as a site has one: members in a network namespace, over TLS, ended when it is dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use crate::command::run;
use crate::patience::eventually;

/// Of clients and of peers, for each member; the network namespace is the test's own.
const PORTS: [(u16, u16); 3] = [(2379, 2380), (22379, 22380), (32379, 32380)];

/// See the module.
#[derive(Debug)]
pub struct Etcds {
    members: Vec<Option<Child>>,
    pin: String,
    host: String,
    folder: tempfile::TempDir,
}

impl Drop for Etcds {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|index| self.kill(index));
    }
}

impl Etcds {
    /// Whether this machine has etcd; what cannot be tested without is skipped.
    #[must_use]
    pub fn are_there() -> bool {
        let there = Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_ok();
        if !there {
            eprintln!("SKIPPED: etcd is not installed (deploy/scripts/deps.sh installs it)");
        }
        there
    }

    /// So many members at `host`, an address in the network namespace with that pin.
    ///
    /// # Panics
    /// When they cannot be started.
    #[must_use]
    #[track_caller]
    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    pub fn start(pin: &str, host: &str, members: usize) -> Self {
        let folder = tempfile::Builder::new().prefix("reeve-etcds-").tempdir().expect("a folder");
        certify(folder.path(), host);
        let members = PORTS.iter().take(members).map(|_| None).collect();
        let mut etcds = Self { members, pin: pin.to_owned(), host: host.to_owned(), folder };
        (0..etcds.members.len()).for_each(|index| etcds.revive(index));
        eventually("etcd", || {
            let file = |name: &str| etcds.file(name).display().to_string();
            let (pin, url) = (format!("--net={pin}"), etcds.url(PORTS[0].0) + "/health");
            let curl = [&pin, "curl", "-sk", "--cert", &file("own.pem"), "--key", &file("own.key"), &url];
            let asked = run(Command::new("nsenter").args(curl), "");
            if asked.stdout.contains("true") { Ok(()) } else { Err(asked.to_string()) }
        });
        etcds
    }

    /// Starts a member that does not run.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    pub fn revive(&mut self, index: usize) {
        let (client, peer) = PORTS[index];
        let all = PORTS.iter().take(self.members.len());
        let all: Vec<String> = all.map(|(client, peer)| format!("m{client}={}", self.url(*peer))).collect();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.pin)).args(["etcd", "--name", &format!("m{client}")]);
        command.args(["--initial-cluster", &all.join(","), "--client-cert-auth", "--unsafe-no-fsync"]);
        command.args(["--listen-client-urls", &self.url(client), "--advertise-client-urls", &self.url(client)]);
        command.args(["--listen-peer-urls", &self.url(peer), "--initial-advertise-peer-urls", &self.url(peer)]);
        command.arg("--data-dir").arg(self.file(&client.to_string()));
        for (flag, file) in [("trusted-ca-file", "ca.pem"), ("cert-file", "own.pem"), ("key-file", "own.key")] {
            command.arg(format!("--{flag}")).arg(self.file(file));
            command.arg(format!("--peer-{flag}")).arg(self.file(file));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.members[index] = Some(command.spawn().expect("etcd starts"));
    }

    /// `kill -9`.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut member) = self.members[index].take() {
            let _ = member.kill(); // it may have ended
            let _ = member.wait();
        }
    }

    /// What Reeve is told of it.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let path = |name: &str| self.file(name).display().to_string();
        let servers: Vec<String> = PORTS.iter().take(self.members.len()).map(|(port, _)| self.url(*port)).collect();
        vec![
            format!("--etcd-servers={}", servers.join(",")),
            format!("--etcd-cafile={}", path("ca.pem")),
            format!("--etcd-certfile={}", path("own.pem")),
            format!("--etcd-keyfile={}", path("own.key")),
        ]
    }

    fn url(&self, port: u16) -> String {
        format!("https://{}:{port}", self.host)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

#[track_caller]
#[allow(clippy::expect_used, reason = "the failure of the calling test")]
fn certify(folder: &Path, host: &str) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).expect("an authority").pem();
    let key = KeyPair::generate().expect("a key");
    let mut own = CertificateParams::new(vec![host.to_owned()]).expect("a name");
    own.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let own_pem = own.signed_by(&key, &Issuer::new(ca, ca_key)).expect("a certificate").pem();
    for (name, text) in [("ca.pem", ca_pem), ("own.pem", own_pem), ("own.key", key.serialize_pem())] {
        std::fs::write(folder.join(name), text).expect("a file");
    }
}
