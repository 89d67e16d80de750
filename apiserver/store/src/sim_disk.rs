//! A disk in memory that does what real disks do on bad days: it loses what was not synced, tears the last write,
//! flips bits, refuses to sync and is full. For tests and the simulation.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reeve_api::rng::{Rng, RngExt as _};

use crate::disk::{Disk, DiskError, DiskFile, DiskLock, LockError, VERB_SYNC, folder_of};

/// One process's handle on the disk; clones are that process too. After a crash only the handle that the crash
/// returned works: the process that had the others is gone, whatever its tasks still try.
#[derive(Debug, Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    process: u64,
}

#[derive(Debug, Default)]
struct State {
    /// What each name means now, and what it means after a power cut.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    files: Vec<FileState>,
    /// Counts crashes of the process: older handles are dead.
    process: u64,
    /// Counts power cuts.
    boot: u64,
    locked: bool,
    syncs: u64,
    fail_syncs: bool,
    sync_takes: Duration,
    /// Bytes that can still be written; `None`: as many as anybody wants.
    free: Option<usize>,
}

#[derive(Debug, Default)]
struct FileState {
    bytes: Vec<u8>,
    synced_len: usize,
}

impl SimDisk {
    /// The process dies; the machine goes on, so nothing written is lost. The next process's handle.
    #[must_use]
    pub fn kill_process(&self) -> Self {
        let mut state = self.lock_state();
        state.process += 1;
        state.locked = false;
        Self { state: self.state.clone(), process: state.process }
    }

    /// The power fails: of each file what was not synced is lost, but for a part whose last byte may be wrong;
    /// names that were not synced are as before, or not. The next process's handle.
    #[must_use]
    pub fn cut_power(&self, rng: &dyn Rng) -> Self {
        let next = self.kill_process();
        let mut state = self.lock_state();
        state.boot += 1;
        state.fail_syncs = false;
        for file in &mut state.files {
            let unsynced = file.bytes.len() - file.synced_len;
            let kept = usize::try_from(rng.below(unsynced as u64 + 1)).unwrap_or(0);
            file.bytes.truncate(file.synced_len + kept);
            if let Some(last) = file.bytes.last_mut().filter(|_| kept > 0 && rng.below(2) == 0) {
                *last ^= 0x55;
            }
            file.synced_len = file.bytes.len();
        }
        if rng.below(2) == 0 {
            state.names = state.durable_names.clone();
        }
        state.durable_names = state.names.clone();
        next
    }

    /// From now on a sync takes this long.
    pub fn slow_down(&self, sync_takes: Duration) {
        self.lock_state().sync_takes = sync_takes;
    }

    /// From now on every sync fails, until the power does.
    pub fn fail_syncs(&self) {
        self.lock_state().fail_syncs = true;
    }

    /// From now on so many bytes can be written, and then no more; `None`: as many as anybody wants.
    pub fn leave_free(&self, bytes: Option<usize>) {
        self.lock_state().free = bytes;
    }

    /// How many syncs of files have succeeded.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.lock_state().syncs
    }

    /// Flips one bit of a file; `false` when the file has no such byte.
    #[must_use]
    pub fn flip(&self, file: &str, offset: usize) -> bool {
        self.change(file, |bytes| {
            bytes.get_mut(offset).is_some_and(|byte| {
                *byte ^= 0x10;
                true
            })
        })
    }

    /// Cuts a file behind the disk's back; `false` when it is not there.
    #[must_use]
    pub fn cut_file(&self, file: &str, len: usize) -> bool {
        self.change(file, |bytes| {
            bytes.truncate(len);
            true
        })
    }

    /// The length of a file; 0 when there is none.
    #[must_use]
    pub fn len_of(&self, file: &str) -> usize {
        let mut len = 0;
        self.change(file, |bytes| {
            len = bytes.len();
            true
        });
        len
    }

    /// The bytes of a file, whoever still has the disk; `None` when it is not there.
    #[must_use]
    pub fn contents(&self, file: &str) -> Option<Vec<u8>> {
        let mut bytes = None;
        self.change(file, |there| {
            bytes = Some(there.clone());
            true
        });
        bytes
    }

    /// The files of a folder, in order, whoever still has the disk.
    #[must_use]
    pub fn files_of(&self, folder: &str) -> Vec<String> {
        self.lock_state().names.keys().filter(|name| folder_of(name) == folder).cloned().collect()
    }

    fn change(&self, file: &str, change: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let mut state = self.lock_state();
        let id = state.names.get(file).copied();
        let Some(file) = id.and_then(|id| state.files.get_mut(id)) else { return false };
        let done = change(&mut file.bytes);
        file.synced_len = file.synced_len.min(file.bytes.len());
        done
    }

    /// The disk, for a process that is still alive.
    fn alive(&self, verb: &'static str, file: &str) -> Result<MutexGuard<'_, State>, DiskError> {
        let state = self.lock_state();
        if state.process == self.process { Ok(state) } else { Err(error(verb, file, io::ErrorKind::BrokenPipe)) }
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn id(&self, verb: &'static str, file: &str) -> Result<usize, DiskError> {
        self.names.get(file).copied().ok_or_else(|| error(verb, file, io::ErrorKind::NotFound))
    }
}

impl Disk for SimDisk {
    fn lock(&self) -> Result<DiskLock, LockError> {
        let mut state = self.alive("lock", "")?;
        if state.locked {
            return Err(LockError::Held { folder: self.path_of(""), holder: state.process.to_string() });
        }
        state.locked = true;
        Ok(Box::new(SimLock { disk: self.clone() }))
    }

    fn boot_id(&self) -> Result<String, DiskError> {
        Ok(self.alive("read", "boot id")?.boot.to_string())
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, DiskError> {
        let state = self.alive("list", folder)?;
        let names = state.names.keys().filter(|name| folder_of(name) == folder);
        Ok(names.filter_map(|name| name.rsplit('/').next()).map(str::to_owned).collect())
    }

    fn open(&self, file: &str) -> Result<Option<Box<dyn Read + Send>>, DiskError> {
        let state = self.alive("open", file)?;
        let Some(file) = state.names.get(file).and_then(|id| state.files.get(*id)) else { return Ok(None) };
        Ok(Some(Box::new(io::Cursor::new(file.bytes.clone()))))
    }

    fn create(&self, file: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        let mut state = self.alive("make", file)?;
        state.files.push(FileState::default());
        let id = state.files.len() - 1;
        state.names.insert(file.to_owned(), id);
        Ok(Box::new(SimFile { disk: self.clone(), id, path: file.to_owned() }))
    }

    fn truncate(&self, file: &str, len: u64) -> Result<(), DiskError> {
        let mut state = self.alive("cut", file)?;
        let id = state.id("cut", file)?;
        if let Some(file) = state.files.get_mut(id) {
            file.bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
            file.synced_len = file.bytes.len();
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut state = self.alive("rename", from)?;
        let id = state.id("rename", from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn remove(&self, file: &str) -> Result<(), DiskError> {
        let mut state = self.alive("remove", file)?;
        state.id("remove", file)?;
        state.names.remove(file);
        Ok(())
    }

    fn sync_folder(&self, folder: &str) -> Result<(), DiskError> {
        let mut state = self.alive(VERB_SYNC, folder)?;
        if state.fail_syncs {
            return Err(error(VERB_SYNC, folder, io::ErrorKind::Other));
        }
        let State { names, durable_names, .. } = &mut *state;
        durable_names.retain(|name, _| folder_of(name) != folder);
        let synced = names.iter().filter(|(name, _)| folder_of(name) == folder);
        durable_names.extend(synced.map(|(name, id)| (name.clone(), *id)));
        Ok(())
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        Ok(self.alive("measure", "")?.free.map_or(u64::MAX, |free| free as u64))
    }

    fn path_of(&self, file: &str) -> String {
        format!("sim:/{file}")
    }
}

struct SimLock {
    disk: SimDisk,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.lock_state();
        if state.process == self.disk.process {
            state.locked = false;
        }
    }
}

struct SimFile {
    disk: SimDisk,
    id: usize,
    path: String,
}

impl SimFile {
    fn with<T>(
        &self,
        verb: &'static str,
        act: impl FnOnce(&mut State, usize) -> Result<T, io::ErrorKind>,
    ) -> Result<T, DiskError> {
        let mut state = self.disk.alive(verb, &self.path)?;
        act(&mut state, self.id).map_err(|kind| error(verb, &self.path, kind))
    }
}

impl DiskFile for SimFile {
    fn append(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        self.with("write", |state, id| {
            let file = state.files.get_mut(id).ok_or(io::ErrorKind::NotFound)?;
            let fits = state.free.unwrap_or(usize::MAX).min(bytes.len());
            file.bytes.extend_from_slice(&bytes[..fits]);
            state.free = state.free.map(|free| free - fits);
            if fits < bytes.len() { Err(io::ErrorKind::StorageFull) } else { Ok(()) }
        })
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        let takes = self.disk.lock_state().sync_takes;
        std::thread::sleep(takes);
        self.with(VERB_SYNC, |state, id| {
            if state.fail_syncs {
                return Err(io::ErrorKind::Other);
            }
            let file = state.files.get_mut(id).ok_or(io::ErrorKind::NotFound)?;
            file.synced_len = file.bytes.len();
            state.syncs += 1;
            Ok(())
        })
    }
}

fn error(verb: &'static str, path: &str, kind: io::ErrorKind) -> DiskError {
    DiskError { verb, path: format!("sim:/{path}"), source: kind.into() }
}
