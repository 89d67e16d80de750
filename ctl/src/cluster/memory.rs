//! How the cluster's process uses memory.

/// Keeps the kernel from backing the heap with huge pages where they are given unasked: every thread's heap would take
/// two megabytes for its first object. Inherited by children; the supervisor, whose children the containers are, takes
/// it back for itself (`reeve_engine::supervisor`). Source: `PR_SET_THP_DISABLE` of prctl(2).
pub(crate) fn avoid_huge_pages() {
    // Refused by kernels without huge pages: then there is nothing to avoid.
    let _ = nix::sys::prctl::set_thp_disable(true);
}
