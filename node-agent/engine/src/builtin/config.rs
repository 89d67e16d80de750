//! What an engine is told, and where it keeps its things.

use std::path::PathBuf;

use reeve_api::clock::SharedClock;
use reeve_api::rng::SharedRng;

/// Configuration of the built-in engine. Two engines never share a folder or a cgroup name.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// What must outlive a reboot: images, containers' files, records. `/var/lib/reeve/dev`.
    pub data_dir: PathBuf,
    /// What must not: sockets, namespaces, FIFOs. On a tmpfs, `/run/reeve/dev`; at most some 80 bytes long, because
    /// a socket's path may have 107.
    pub run_dir: PathBuf,
    /// Name of the engine's group in every cgroup hierarchy: `reeve-dev`.
    pub cgroup_root: String,
    /// The program to start as supervisor: one whose `main` calls [`crate::supervisor::supervisor_main`] first.
    /// `/proc/self/exe` is this very program.
    pub supervisor_program: PathBuf,
    /// Whether supervisor and containers end when this engine does, however that happens: those of a build do, those of
    /// a node never.
    pub ends_with_engine: bool,
    /// Folders of hooks (oci-hooks(5)), later ones over earlier ones; see [`crate::runtime::hooks::DIRS`].
    pub hook_dirs: Vec<PathBuf>,
    /// What time it is.
    pub clock: SharedClock,
    /// Where ids come from.
    pub rng: SharedRng,
}

/// Paths below the two folders.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// Records and what else must outlive a reboot.
    data: PathBuf,
    /// The supervisor's run folder.
    pub(super) run: PathBuf,
}

impl Layout {
    pub(super) fn new(config: &EngineConfig) -> Self {
        Self { data: config.data_dir.join("engine"), run: config.run_dir.join("engine") }
    }

    /// Records of sandboxes, `ID.json`.
    pub(super) fn sandbox_records(&self) -> PathBuf {
        self.data.join("sandboxes")
    }

    /// The record of a sandbox.
    pub(super) fn sandbox_record(&self, id: &str) -> PathBuf {
        self.sandbox_records().join(format!("{id}.json"))
    }

    /// Pinned namespaces and shared memory of a sandbox.
    pub(super) fn sandbox_run(&self, id: &str) -> PathBuf {
        self.run.join("sandboxes").join(id)
    }

    /// Which of a pod's groups are ours, where another may have made them.
    pub(super) fn own_groups(&self, id: &str) -> PathBuf {
        self.sandbox_run(id).join("groups.json")
    }

    /// Folders of containers' records.
    pub(super) fn container_records(&self) -> PathBuf {
        self.data.join("containers")
    }

    /// Folder of a container's records.
    pub(super) fn container_data(&self, id: &str) -> PathBuf {
        self.container_records().join(id)
    }

    /// What a container is to be.
    pub(super) fn container_record(&self, id: &str) -> PathBuf {
        self.container_data(id).join("container.json")
    }

    /// How a container ended.
    pub(super) fn exit_record(&self, id: &str) -> PathBuf {
        self.container_data(id).join("exit.json")
    }

    /// FIFOs of a container.
    pub(super) fn container_run(&self, id: &str) -> PathBuf {
        self.run.join("containers").join(id)
    }

    /// That a container was started.
    pub(super) fn run_record(&self, id: &str) -> PathBuf {
        self.container_run(id).join("started.json")
    }

    /// CRIU's images, until the container that comes back from them is started.
    pub(super) fn checkpoint_images(&self, id: &str) -> PathBuf {
        self.container_data(id).join("checkpoint")
    }

    /// That a container comes back from a checkpoint.
    pub(super) fn checkpoint_record(&self, id: &str) -> PathBuf {
        self.container_data(id).join("restore.json")
    }

    /// Where CRIU writes while it brings a container back.
    pub(super) fn checkpoint_work(&self, id: &str) -> PathBuf {
        self.container_run(id).join("criu")
    }

    /// Where the cgroup controllers were found when the run folder was made.
    pub(super) fn hierarchies(&self) -> PathBuf {
        self.run.join("cgroups.json")
    }

    /// Everything below the data folder.
    pub(super) fn data(&self) -> &PathBuf {
        &self.data
    }
}
