//! How the cluster's process uses the memory allocator of the C library.

#![allow(unsafe_code, reason = "mallopt(3) and malloc_trim(3)")]

use std::time::Duration;

/// Heaps that threads share. Each heap keeps what was freed in it; glibc's default is eight per core, of which every
/// thread that ever parses an object fills one.
const ARENAS_MAX: libc::c_int = 2;

/// How often what was freed is given back: as often as the API server forgets old history.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(300);

/// Gives back to the kernel what a burst has left free inside of the heaps, from time to time; else only the end of a
/// heap is given back. After 50,000 writes that is 20 MiB. Never returns.
pub(crate) async fn give_back() -> std::convert::Infallible {
    loop {
        tokio::time::sleep(GIVE_BACK_EVERY).await;
        // It locks the heaps for some milliseconds; a worker of the runtime has better things to do.
        let _ = tokio::task::spawn_blocking(trim).await;
    }
}

fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) may be called by any thread at any time; it only touches memory that is free.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Bounds the number of heaps. To be called before the first thread is started.
pub(crate) fn bound_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) takes two integers; no other thread exists that could allocate at the same time.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX) };
}
