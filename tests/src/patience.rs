//! Waiting, bounded: the only place of the end-to-end tests that looks more than once.

use std::time::Duration;

use reeve_api::clock::{Clock as _, RealClock};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a test waits for what should take a moment, in seconds; `REEVE_TEST_PATIENCE` overrides it.
const PATIENCE_SECONDS: u64 = 60;

/// How long a test waits for what should take a moment. Generous: a busy machine is not a failure.
#[must_use]
pub fn patience() -> Duration {
    let given = std::env::var("REEVE_TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(given.unwrap_or(PATIENCE_SECONDS))
}

/// Looks until `look` finds what it wants; its last `Err` says what was there instead.
///
/// # Panics
/// When [`patience`] is over.
#[track_caller]
#[allow(clippy::panic, reason = "the failure of the calling test")]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let clock = RealClock::new();
    let deadline = clock.monotonic() + patience();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if clock.monotonic() >= deadline => {
                panic!("{what}: not within {:?}; last seen: {seen}", patience())
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// [`eventually`] for a condition: `seen` is what stands there, `wanted` whether that is it.
#[track_caller]
pub fn eventually_is(what: &str, mut seen: impl FnMut() -> String, wanted: impl Fn(&str) -> bool) -> String {
    eventually(what, || {
        let seen = seen();
        if wanted(&seen) { Ok(seen) } else { Err(seen) }
    })
}
