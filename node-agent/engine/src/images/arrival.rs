//! A blob that is read while it is being written: a layer is unpacked as it arrives.
//!
//! What is read so is nobody's word yet: whether the blob is what it should be is known at its end. Unpacking checks
//! the digest of what it has unpacked by itself (`snapshot::layers`), and nothing unpacked has a name before.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What those see who wait for a blob. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arrival(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    /// Where it is being written; none before the first byte, or when it was here already.
    file: Option<Arc<File>>,
    len: u64,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Coming,
    /// It lies in the store.
    Whole,
    /// It will not come, or begins anew.
    Lost,
}

/// The side of whoever writes it. Dropped before it is whole, the blob is lost.
#[derive(Debug)]
pub(crate) struct Arriving(Arrival);

/// Reads what has come, and waits for the rest.
#[derive(Debug)]
pub(crate) struct Follower {
    arrival: Arrival,
    file: Arc<File>,
    at: u64,
    read: Arc<AtomicU64>,
}

/// What a blob that is waited for came to.
#[derive(Debug)]
pub(crate) enum Came {
    /// It is being written: read along.
    Begun(Follower),
    /// It lies in the store.
    Whole,
}

impl Arrival {
    /// The side of whoever writes it; there is one.
    pub(crate) fn arriving(&self) -> Arriving {
        Arriving(self.clone())
    }

    /// Waits until there is something to read. Blocks.
    pub(crate) fn wait(&self) -> io::Result<Came> {
        let mut state = self.lock();
        loop {
            match (state.phase, &state.file) {
                (Phase::Lost, _) => return Err(lost()),
                (Phase::Whole, _) => return Ok(Came::Whole),
                (Phase::Coming, Some(file)) => {
                    let (arrival, file) = (self.clone(), Arc::clone(file));
                    return Ok(Came::Begun(Follower { arrival, file, at: 0, read: Arc::default() }));
                }
                (Phase::Coming, None) => state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Waits until it lies in the store. Blocks.
    pub(crate) fn wait_whole(&self) -> io::Result<()> {
        let mut state = self.lock();
        loop {
            match state.phase {
                Phase::Whole => return Ok(()),
                Phase::Lost => return Err(lost()),
                Phase::Coming => state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.0.1.notify_all();
    }
}

impl Arriving {
    /// It is written into this file from now on.
    pub(crate) fn begin(&self, file: File) {
        self.0.change(|state| state.file = Some(Arc::new(file)));
    }

    /// So many bytes more have come.
    pub(crate) fn grew(&self, bytes: u64) {
        self.0.change(|state| state.len += bytes);
    }

    /// It begins anew. Who reads along does not.
    pub(crate) fn lose(&self) {
        self.0.change(|state| state.phase = Phase::Lost);
    }

    /// It lies in the store.
    pub(crate) fn finish(self) {
        self.0.change(|state| {
            if state.phase == Phase::Coming {
                state.phase = Phase::Whole;
            }
        });
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.change(|state| {
            if state.phase == Phase::Coming {
                state.phase = Phase::Lost;
            }
        });
    }
}

impl Follower {
    /// Counts what has been read.
    pub(crate) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read)
    }
}

impl Read for Follower {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = {
            let mut state = self.arrival.lock();
            loop {
                match state.phase {
                    Phase::Lost => return Err(lost()),
                    _ if self.at < state.len => break state.len - self.at,
                    Phase::Whole => return Ok(0),
                    Phase::Coming => state = self.arrival.0.1.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            }
        };
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let read = self.file.read_at(buf.get_mut(..len).unwrap_or_default(), self.at)?;
        self.at += read as u64;
        self.read.store(self.at, Ordering::Relaxed);
        Ok(read)
    }
}

fn lost() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the blob did not come")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A blob that is written piece by piece, and what a reader made of it.
    fn read_along(write: impl FnOnce(&mut File, Arriving)) -> io::Result<Vec<u8>> {
        let mut file = tempfile::tempfile().unwrap();
        let (arrival, mut seen) = (Arrival::default(), Vec::new());
        let arriving = arrival.arriving();
        arriving.begin(file.try_clone().unwrap());
        let Ok(Came::Begun(mut follower)) = arrival.wait() else { panic!("it has begun") };
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| follower.read_to_end(&mut seen));
            write(&mut file, arriving);
            reader.join().unwrap()
        })?;
        Ok(seen)
    }

    #[test]
    fn a_reader_sees_every_byte_as_it_comes_and_the_end() {
        let seen = read_along(|file, arriving| {
            for piece in [b"one ".as_slice(), b"two ", b"three"] {
                file.write_all(piece).unwrap();
                arriving.grew(piece.len() as u64);
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            arriving.finish();
        });
        assert_eq!(seen.unwrap(), b"one two three");
    }

    #[test]
    fn a_blob_that_breaks_off_or_begins_anew_is_no_end() {
        let broken = read_along(|file, arriving| {
            file.write_all(b"half").unwrap();
            arriving.grew(4);
        });
        assert_eq!(broken.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let anew = read_along(|_, arriving| {
            arriving.lose();
            arriving.finish();
        });
        assert!(anew.is_err(), "whoever reads along has read what does not count");
        let never = Arrival::default();
        drop(never.arriving());
        assert!(never.wait().is_err() && never.wait_whole().is_err());
        let here = Arrival::default();
        here.arriving().finish();
        assert!(matches!(here.wait(), Ok(Came::Whole)) && here.wait_whole().is_ok());
    }
}
