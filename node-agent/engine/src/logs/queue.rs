//! Queues between the supervisor's threads: a locked deque and an eventfd that wakes an epoll loop.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

/// A bounded queue whose receiver waits in epoll. The lock is held for a push or a swap only.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    items: Mutex<VecDeque<T>>,
    wake: OwnedFd,
    len_max: usize,
}

impl<T> Queue<T> {
    /// An empty queue of at most `len_max` items.
    pub(crate) fn new(len_max: usize) -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { items: Mutex::default(), wake, len_max })
    }

    /// Adds an item; gives it back when the queue is full.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        if items.len() >= self.len_max {
            return Err(item);
        }
        items.push_back(item);
        drop(items);
        // Fails only when the counter is full, and then the receiver is awake already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        Ok(())
    }

    /// Takes everything.
    pub(crate) fn take(&self) -> VecDeque<T> {
        // Fails only when nobody has pushed since the last time.
        let _ = rustix::io::read(&self.wake, &mut [0_u8; 8]);
        std::mem::take(&mut *self.items.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Readable when there is something to take.
    pub(crate) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
