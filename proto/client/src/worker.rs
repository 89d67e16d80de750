//! Works off a queue: several keys at once, never one key twice at once, failures again later.

use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use tracing::{debug, error, warn};

use crate::WorkQueue;
use crate::component::panic_text;

/// Failures of one key in a row that are only worth a debug line: conflicts and stale views pass by themselves.
const QUIET_FAILURES: u32 = 5;

/// What a successful round asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing before the next change.
    Done,
    /// Another round after this time, even if nothing changes.
    After(Duration),
}

/// Calls `sync` for every key of `queue`, for at most `parallel` keys at once, until dropped.
///
/// A key whose round fails is rate limited and comes again. One whose round panics too: an object that nobody was
/// prepared for must not stop the work on all others. All rounds run in the caller's task: they are made of requests
/// and wait most of the time.
pub async fn work<T, E, F>(name: &str, queue: &WorkQueue<T>, parallel: usize, sync: impl Fn(T) -> F)
where
    T: Clone + Eq + Hash + Debug,
    E: Display,
    F: Future<Output = Result<Next, E>>,
{
    let keys = futures::stream::unfold((), |()| async { Some((queue.next().await, ())) });
    keys.for_each_concurrent(parallel, |key| {
        let started = || sync(key.clone());
        let round = std::panic::catch_unwind(AssertUnwindSafe(started));
        async move {
            let ended = match round {
                Ok(round) => AssertUnwindSafe(round).catch_unwind().await,
                Err(panic) => Err(panic),
            };
            match ended {
                Err(panic) => {
                    error!(name, ?key, panic = panic_text(&*panic), "a round has panicked, trying again");
                    queue.add_rate_limited(key.clone());
                }
                Ok(Ok(next)) => {
                    queue.forget(&key);
                    if let Next::After(delay) = next {
                        queue.add_after(key.clone(), delay);
                    }
                }
                Ok(Err(error)) => {
                    if queue.failures(&key) < QUIET_FAILURES {
                        debug!(name, ?key, %error, "round failed, trying again");
                    } else {
                        warn!(name, ?key, %error, "round fails again and again");
                    }
                    queue.add_rate_limited(key.clone());
                }
            }
            queue.done(&key);
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[tokio::test]
    async fn a_failing_key_comes_again_and_the_others_go_on() {
        let queue = WorkQueue::default();
        queue.add("bad");
        queue.add("good");
        let (attempts, seen) = (Cell::new(0), RefCell::new(Vec::new()));
        let rounds = work("test", &queue, 2, |key| {
            seen.borrow_mut().push(key);
            attempts.set(attempts.get() + u32::from(key == "bad"));
            let fails = key == "bad" && attempts.get() < 3;
            async move { if fails { Err("no") } else { Ok(Next::Done) } }
        });
        assert!(tokio::time::timeout(Duration::from_millis(200), rounds).await.is_err());
        assert_eq!(*seen.borrow(), ["bad", "good", "bad", "bad"]);
        assert_eq!(queue.failures(&"bad"), 0);
    }

    #[tokio::test]
    async fn a_key_whose_round_panics_comes_again_and_the_others_go_on() {
        let queue = WorkQueue::default();
        queue.add("bad");
        queue.add("good");
        let (attempts, seen) = (Cell::new(0), RefCell::new(Vec::new()));
        let rounds = work("test", &queue, 2, |key| {
            seen.borrow_mut().push(key);
            attempts.set(attempts.get() + u32::from(key == "bad"));
            // At once, then at an await.
            assert!(key == "good" || attempts.get() != 1, "a bug");
            let fails = key == "bad" && attempts.get() == 2;
            async move {
                tokio::task::yield_now().await;
                assert!(!fails, "a bug");
                Ok::<_, String>(Next::Done)
            }
        });
        assert!(tokio::time::timeout(Duration::from_millis(200), rounds).await.is_err());
        assert_eq!(*seen.borrow(), ["bad", "good", "bad", "bad"]);
        assert_eq!(queue.failures(&"bad"), 0);
    }

    #[tokio::test]
    async fn a_round_may_ask_for_another_one_later() {
        let queue = WorkQueue::default();
        queue.add("a");
        let rounds = Cell::new(0);
        let working = work("test", &queue, 1, |_| {
            rounds.set(rounds.get() + 1);
            async { Ok::<_, String>(Next::After(Duration::from_millis(20))) }
        });
        assert!(tokio::time::timeout(Duration::from_millis(500), working).await.is_err());
        assert!((2..=25).contains(&rounds.get()), "{} rounds", rounds.get());
    }
}
