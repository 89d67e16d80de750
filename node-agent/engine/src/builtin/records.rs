//! What the engine remembers on disk, so that its next life knows every sandbox and container.
//!
//! Records are written whole and renamed, without fsync: after a crash of the machine no container runs. The youngest
//! records may then be empty or lost; what was told of their containers is in the API, on disk, and the agent goes by
//! that (`pod/adopt.rs`). What is left of them here is removed.

use std::fs;
use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::config::Layout;
use crate::engine::{Container, EngineError, Sandbox};
use crate::logs::writer::write_record;
use crate::supervisor::plan::{ExitRecord, RunRecord};

/// Longest record: a container with the largest environment.
const RECORD_LEN_MAX: u64 = 16 << 20;

/// A sandbox on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SandboxRecord {
    /// The boot in which it was made: its namespaces end with it.
    pub(super) boot_id: String,
    /// The sandbox.
    pub(super) sandbox: Sandbox,
}

/// A container on disk. Its state there is always `Created`: start and end are records of their own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ContainerRecord {
    /// The boot in which it was made.
    pub(super) boot_id: String,
    /// The container.
    pub(super) container: Container,
}

/// A container as its records tell.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    pub(super) record: ContainerRecord,
    pub(super) run: Option<RunRecord>,
    pub(super) exit: Option<ExitRecord>,
}

/// Writes a record whole or not at all.
pub(super) fn write<T: Serialize>(path: &Path, record: &T) -> Result<(), EngineError> {
    write_record(path, record).map_err(|source| EngineError::Io { step: format!("write {}", path.display()), source })
}

/// Reads a record; `None` when it is missing or of no use (a power cut leaves empty files).
///
/// An I/O error is neither: who took it for "no such container" would start a second copy.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, EngineError> {
    let fail = |source| EngineError::Io { step: format!("read {}", path.display()), source };
    let bytes = match fs::metadata(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if metadata.len() > RECORD_LEN_MAX => return Ok(None),
        other => other.and_then(|_| fs::read(path)).map_err(fail)?,
    };
    match serde_json::from_slice(&bytes) {
        Ok(record) => Ok(Some(record)),
        Err(err) => {
            tracing::warn!(path = %path.display(), %err, "passing over a record that cannot be read");
            Ok(None)
        }
    }
}

/// Every sandbox on disk. What cannot be read goes.
pub(super) fn sandboxes(layout: &Layout) -> Result<Vec<SandboxRecord>, EngineError> {
    let mut found = Vec::new();
    for path in list(&layout.sandbox_records())? {
        if path.extension().is_some_and(|ext| ext == "json") {
            match read(&path)? {
                Some(record) => found.push(record),
                None => remove(&path)?,
            }
        }
    }
    Ok(found)
}

/// Every container on disk, with what became of it.
pub(super) fn containers(layout: &Layout) -> Result<Vec<Remembered>, EngineError> {
    let mut found = Vec::new();
    for path in list(&layout.container_records())? {
        let Some(id) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(record) = read(&layout.container_record(id))? else {
            // A creation that was cut short: nothing of it was ever told to anybody. Or a power cut, see above.
            let _ = fs::remove_dir_all(&path);
            continue;
        };
        found.push(Remembered { record, run: read(&layout.run_record(id))?, exit: read(&layout.exit_record(id))? });
    }
    Ok(found)
}

/// Removes a file or folder; what is gone is fine.
pub(super) fn remove(path: &Path) -> Result<(), EngineError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(EngineError::Io { step: format!("remove {}", path.display()), source })
        }
        _ => Ok(()),
    }
}

/// Makes a folder and its parents.
pub(super) fn make_dir(path: &Path) -> Result<(), EngineError> {
    fs::create_dir_all(path).map_err(|source| EngineError::Io { step: format!("make {}", path.display()), source })
}

fn list(dir: &Path) -> Result<Vec<std::path::PathBuf>, EngineError> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(EngineError::Io { step: format!("list {}", dir.display()), source }),
    }
}
