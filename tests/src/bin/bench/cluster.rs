//! A cluster to measure: brought up with the program under test, taken away completely when dropped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::time::Instant;

use crate::process;

/// Name of the image that the pods run.
pub(crate) const IMAGE: &str = "bench:1";
/// Where a static busybox may lie.
const BUSYBOX: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

/// A copy of the program under test: a file that nobody else runs, so that its processes can be told from others.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// The copy.
    pub path: PathBuf,
}

impl Program {
    /// Copies the program into the folder.
    pub(crate) fn copy(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("reeve");
        std::fs::copy(program, &path).with_context(|| format!("copy {}", program.display()))?;
        Ok(Self { path })
    }

    fn run(&self, args: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(&self.path);
        let output = command.args(args).stdin(Stdio::null()).output().context("start reeve")?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "reeve {}: {}", args.join(" "), said.trim());
        Ok(())
    }
}

/// What a running cluster writes down about itself; the part that is needed here.
#[derive(Debug, Deserialize)]
struct RunState {
    process: RunProcess,
}

#[derive(Debug, Deserialize)]
struct RunProcess {
    pid: u32,
}

/// A cluster of the bench's own, in its own network namespace.
#[derive(Debug)]
pub(crate) struct Cluster {
    program: Program,
    name: String,
    data_dir: PathBuf,
    /// How long its first `reeve up` took.
    pub up_took: Duration,
}

impl Cluster {
    /// Brings up a new one.
    pub(crate) fn up(program: &Program, folder: &Path, label: &str) -> anyhow::Result<Self> {
        let name = format!("bench-{}-{label}", std::process::id());
        let data_dir = folder.join(label);
        let mut cluster = Self { program: program.clone(), name, data_dir, up_took: Duration::ZERO };
        cluster.up_took = cluster.start()?;
        Ok(cluster)
    }

    /// `reeve up`; how long it took.
    pub(crate) fn start(&self) -> anyhow::Result<Duration> {
        let started = Instant::now();
        self.program.run(&["up", "--netns", "--no-kubeconfig", "--name", &self.name, "--data-dir", &self.data()])?;
        Ok(started.elapsed())
    }

    /// `reeve down`.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.program.run(&["down", "--name", &self.name, "--data-dir", &self.data()])
    }

    fn data(&self) -> String {
        self.data_dir.display().to_string()
    }

    /// The administrator's.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("admin.kubeconfig")
    }

    /// A client with the administrator's certificate, over TLS.
    pub(crate) async fn client(&self) -> anyhow::Result<kube::Client> {
        let path = self.kubeconfig();
        let file = kube::config::Kubeconfig::read_from(&path).with_context(|| format!("read {}", path.display()))?;
        let config = kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// Builds the image of the pods; returns the program in it, as it lies on this machine.
    pub(crate) fn build_image(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        let busybox = BUSYBOX.iter().map(PathBuf::from).find(|path| path.exists());
        let busybox = busybox.context("busybox is missing: install busybox-static")?;
        let context = folder.join("image");
        std::fs::create_dir_all(&context)?;
        std::fs::copy(&busybox, context.join("busybox"))?;
        std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY busybox /bin/busybox\n")?;
        let context = context.display().to_string();
        self.program.run(&["build", "--quiet", "--name", &self.name, "-t", IMAGE, &context])?;
        Ok(busybox)
    }

    /// All its processes but the containers: those of its program.
    pub(crate) fn processes(&self) -> anyhow::Result<Vec<u32>> {
        process::running(&self.program.path)
    }

    /// Its main process.
    pub(crate) fn main_pid(&self) -> anyhow::Result<u32> {
        let path = format!("/run/reeve/{}/cluster.json", self.name);
        let text = std::fs::read(&path).with_context(|| format!("read {path}"))?;
        let state: RunState = serde_json::from_slice(&text).with_context(|| format!("read {path}"))?;
        Ok(state.process.pid)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(err) = self.program.run(&["down", "--purge", "--name", &self.name, "--data-dir", &self.data()]) {
            eprintln!("bench: cluster {} is left behind: {err:#}", self.name);
        }
    }
}
