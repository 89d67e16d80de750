//! One member or three of a store, ours or etcd's, as processes on loopback. They end when the group is dropped.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::certificates::Certificates;
use super::load::{Call, Caller, Clients, Job};
use super::member::MemberFile;
use crate::process::{self, Reading};

/// How long a group may take to answer for the first time, and to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a group that starts is asked.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// More than is written here: etcd stops writing when its file has this size.
const ETCD_QUOTA: &str = "8589934592";

/// Whose store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Maker {
    /// This one.
    Reeve,
    /// etcd, as it is installed.
    Etcd,
}

/// See the module.
pub(crate) struct Group {
    maker: Maker,
    folder: PathBuf,
    certificates: Certificates,
    /// Of clients and of peers, for each member.
    ports: Vec<(u16, u16)>,
    children: Vec<Child>,
}

impl Group {
    /// Starts it on a folder of its own, and waits until every member serves.
    pub(crate) async fn start(maker: Maker, folder: &Path, members: u64) -> anyhow::Result<Self> {
        let certificates = Certificates::new(members)?;
        std::fs::create_dir_all(folder)?;
        let taken: Vec<_> = (0..2 * members).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect();
        let ports = taken.into_iter().map(|own| Ok(own?.local_addr()?.port())).collect::<std::io::Result<Vec<_>>>()?;
        let ports = ports.chunks(2).map(|pair| (pair[0], pair[1])).collect();
        let folder = folder.to_owned();
        let mut group = Self { maker, folder, certificates, ports, children: Vec::new() };
        group.start_again().await?;
        Ok(group)
    }

    /// Starts the processes; how long it took until every member has answered.
    pub(crate) async fn start_again(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        for member in 0..self.ports.len() {
            let folder = self.folder.join(member.to_string());
            std::fs::create_dir_all(&folder)?;
            self.certificates.write(member, &folder)?;
            let mut command = match self.maker {
                Maker::Reeve => self.reeve(member, &folder)?,
                Maker::Etcd => self.etcd(member, &folder),
            };
            let log = File::create(folder.join("log"))?;
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
            self.children.push(command.spawn().with_context(|| format!("start a member of {:?}", self.maker))?);
        }
        for caller in self.callers()? {
            while let Err(error) = asked(&caller).await {
                anyhow::ensure!(began.elapsed() < PATIENCE, "{:?} does not answer: {error:#}", self.maker);
                self.check_alive()?;
                tokio::time::sleep(ASK_EVERY).await;
            }
        }
        Ok(began.elapsed())
    }

    fn reeve(&self, member: usize, folder: &Path) -> anyhow::Result<Command> {
        let (port, _) = self.ports[member];
        let peers = if self.ports.len() == 1 { Vec::new() } else { self.ports.iter().map(|(_, peer)| *peer).collect() };
        let (ca_pem, own) = (self.certificates.ca_pem.clone(), self.certificates.members[member].clone());
        let file = MemberFile { id: member as u64 + 1, data: folder.join("data"), peers, port, ca_pem, own };
        let path = folder.join("member.json");
        std::fs::write(&path, serde_json::to_vec(&file)?)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--member").arg(path);
        Ok(command)
    }

    fn etcd(&self, member: usize, folder: &Path) -> Command {
        let url = |port| format!("https://127.0.0.1:{port}");
        let (port, peer) = self.ports[member];
        let all: Vec<_> = self.ports.iter().zip(1..).map(|((_, peer), id)| format!("m{id}={}", url(*peer))).collect();
        let mut command = Command::new("etcd");
        command.args(["--name", &format!("m{}", member + 1), "--initial-cluster", &all.join(",")]);
        command.args(["--listen-client-urls", &url(port), "--advertise-client-urls", &url(port)]);
        command.args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)]);
        command.args(["--client-cert-auth", "--peer-client-cert-auth", "--quota-backend-bytes", ETCD_QUOTA]);
        command.args(["--log-level", "warn", "--logger", "zap", "--log-outputs", "stderr"]);
        command.arg("--data-dir").arg(folder.join("data"));
        for side in ["", "peer-"] {
            for (flag, file) in [("trusted-ca-file", "ca.pem"), ("cert-file", "own.pem"), ("key-file", "own.key")] {
                command.arg(format!("--{side}{flag}")).arg(folder.join(file));
            }
        }
        command
    }

    fn check_alive(&mut self) -> anyhow::Result<()> {
        for (member, child) in self.children.iter_mut().enumerate() {
            if let Some(status) = child.try_wait()? {
                let log = std::fs::read_to_string(self.folder.join(member.to_string()).join("log")).unwrap_or_default();
                anyhow::bail!("a member of {:?} has ended with {status}: {log}", self.maker);
            }
        }
        Ok(())
    }

    /// One for each member.
    pub(crate) fn callers(&self) -> anyhow::Result<Vec<Caller>> {
        let tls = self.certificates.connector()?;
        let caller = |(port, _): &(u16, u16)| Caller { address: format!("127.0.0.1:{port}"), tls: tls.clone() };
        Ok(self.ports.iter().map(caller).collect())
    }

    fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }

    /// CPU time of all members.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        self.pids().into_iter().map(process::cpu).sum()
    }

    /// Memory of all members.
    pub(crate) fn reading(&self) -> anyhow::Result<Reading> {
        Reading::of(&self.pids())
    }

    /// Ends all members in order, and waits for that.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        for child in &mut self.children {
            match self.maker {
                Maker::Reeve => drop(child.stdin.take()),
                Maker::Etcd => kill(Pid::from_raw(child.id().try_into()?), Signal::SIGTERM)?,
            }
        }
        for mut child in self.children.drain(..) {
            child.wait()?;
        }
        Ok(())
    }

    /// `kill -9` of all members.
    pub(crate) fn kill(&mut self) {
        for mut child in self.children.drain(..) {
            let _ = child.kill(); // it has ended by itself
            let _ = child.wait();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether a linearizable read is answered.
async fn asked(caller: &Caller) -> anyhow::Result<()> {
    let clients = Clients::connect(std::slice::from_ref(caller), 1, Call::Ask).await?;
    clients.work(Job::new(Call::Ask, 1, 1, Instant::now() + PATIENCE)).await.map(drop)
}
