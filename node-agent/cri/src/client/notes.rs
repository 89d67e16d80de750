//! What of a container changed since it was created: CRI has no way to say so again later.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use reeve_engine::engine::{ContainerConfig, Resources};
use serde::{Deserialize, Serialize};

/// Longest note that is read.
const NOTE_BYTES_MAX: u64 = 1 << 20;

/// What changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) resources: Resources,
    pub(super) annotations: BTreeMap<String, String>,
}

impl Note {
    /// A configuration as it is by now.
    pub(super) fn apply(self, config: &mut ContainerConfig) {
        config.resources = std::mem::take(&mut config.resources).updated(&self.resources);
        config.annotations.extend(self.annotations);
    }
}

/// A folder of notes, one file per container.
#[derive(Debug)]
pub(super) struct Notes {
    dir: PathBuf,
}

impl Notes {
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    fn path(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    /// What changed of a container; mostly nothing. Small files, on the caller's thread.
    pub(super) fn of(&self, id: &str) -> Note {
        use std::io::Read as _;
        let mut text = Vec::new();
        let read = std::fs::File::open(self.path(id));
        let read = read.and_then(|file| file.take(NOTE_BYTES_MAX).read_to_end(&mut text));
        match read {
            Ok(_) => serde_json::from_slice(&text).unwrap_or_default(),
            Err(_) => Note::default(),
        }
    }

    /// Keeps a change beside what changed before.
    pub(super) fn add(&self, id: &str, change: Note) -> io::Result<()> {
        let mut note = self.of(id);
        note.resources = note.resources.updated(&change.resources);
        note.annotations.extend(change.annotations);
        let (path, beside) = (self.path(id), self.dir.join(format!("{id}.tmp")));
        std::fs::write(&beside, serde_json::to_vec(&note)?)?;
        std::fs::rename(beside, path)
    }

    /// Forgets a container.
    pub(super) fn forget(&self, id: &str) {
        // One that stays is of a container that nobody will ever ask for again.
        let _ = std::fs::remove_file(self.path(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_add_up_and_go_with_the_container() {
        let dir = tempfile::tempdir().unwrap();
        let notes = Notes::open(dir.path().join("notes")).unwrap();
        let memory = |bytes| Resources { memory_limit_bytes: Some(bytes), ..Resources::default() };
        let shares = Resources { cpu_shares: Some(7), ..Resources::default() };
        let note = |resources, name: &str| Note { resources, annotations: [(name.to_owned(), "x".to_owned())].into() };
        notes.add("c", note(memory(1), "a")).unwrap();
        notes.add("c", note(shares, "b")).unwrap();
        let mut config = ContainerConfig { resources: memory(9), ..ContainerConfig::default() };
        notes.of("c").apply(&mut config);
        assert_eq!((config.resources.memory_limit_bytes, config.resources.cpu_shares), (Some(1), Some(7)));
        assert_eq!(config.annotations.len(), 2);
        notes.forget("c");
        assert_eq!(notes.of("c"), Note::default());
    }
}
