//! How the cluster's process uses the memory allocator of the C library.

#![allow(unsafe_code, reason = "mallopt(3)")]

/// Heaps that threads share. Each heap keeps what was freed in it; glibc's default is eight per core, of which every
/// thread that ever parses an object fills one.
const ARENAS_MAX: libc::c_int = 2;

/// Bounds the number of heaps. To be called before the first thread is started.
pub(crate) fn bound_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) takes two integers; no other thread exists that could allocate at the same time.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX) };
}
