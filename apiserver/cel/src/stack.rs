//! Room for deep expressions. Going through a tree takes a function call or a few for each level; what is as deep as
//! an expression may be does not fit the stack of an ordinary thread in every build, so it gets a thread of its own.

/// Levels that fit any thread's stack with room to spare; what people write is not deeper.
pub(crate) const SHALLOW: usize = 80;
/// Room for the deepest expression there can be.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Does `work`, on a thread of its own if it is `deep`; none when no thread can be had.
pub(crate) fn with_room<T: Send>(deep: bool, work: impl FnOnce() -> T + Send) -> Option<T> {
    if !deep {
        return Some(work());
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("deep-expression".to_owned()).stack_size(STACK_BYTES);
        match thread.spawn_scoped(scope, work).ok()?.join() {
            Ok(done) => Some(done),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Whether a text may be deep: each level needs a letter of these at least.
pub(crate) fn may_be_deep(text: &str) -> bool {
    text.bytes().filter(|byte| b"([{.?+-*/%<>=!:".contains(byte) || *byte == b'n').count() > SHALLOW / 2
}
