//! Keeps a component running that has a bug: built anew after a pause, for it holds nothing but what it watches.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::Instant;
use tracing::error;

use crate::component::panic_text;
use crate::{Backoff, Component};

/// First and longest pause before a component that has panicked is built anew. A bug that an object sets off comes
/// back as long as the object is there; it must not take the processor.
const PAUSE_INITIAL: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A component that ran this long was well: the next pause is the first one again.
const WELL_AFTER: Duration = Duration::from_secs(600);

/// Runs a component until it ends by itself, is told to, or fails without a panic; after a panic in it, or in one of
/// its vital tasks, it is built and run again. `build` makes a fresh component and what runs it.
///
/// # Errors
/// What the component's run answered.
pub async fn restarting<E, F>(name: &str, build: impl Fn() -> (Component, F)) -> Result<(), E>
where
    F: Future<Output = Result<(), E>>,
{
    restarting_after(PAUSE_INITIAL, name, build).await
}

async fn restarting_after<E, F>(initial: Duration, name: &str, build: impl Fn() -> (Component, F)) -> Result<(), E>
where
    F: Future<Output = Result<(), E>>,
{
    let mut backoff = None;
    loop {
        let (component, run) = build();
        let began = Instant::now();
        let ended = AssertUnwindSafe(run).catch_unwind().await;
        let failed = component.outcome();
        match ended {
            Ok(outcome) if failed.is_ok() => return outcome,
            Ok(_) => {}
            Err(panic) => error!(component = name, panic = panic_text(&*panic), "a component has panicked"),
        }
        // Nothing of it may be left beside its successor.
        component.end().await;
        let backoff = backoff.get_or_insert_with(|| Backoff::new(initial, PAUSE_MAX, component.rng.clone()));
        if began.elapsed() >= WELL_AFTER {
            backoff.reset();
        }
        let pause = backoff.delay();
        let task = failed.err().map_or("run", |failed| failed.task);
        error!(component = name, task, ?pause, "a component is built anew after a panic");
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::Client;
    use kube::client::Body;
    use reeve_api::clock::RealClock;
    use reeve_api::rng::SeededRng;
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn component(shutdown: &CancellationToken) -> Component {
        let service = tower::service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
        let client = Client::new(service, "default");
        Component::new(client, RealClock::shared(), SeededRng::shared(), shutdown.clone())
    }

    #[tokio::test]
    async fn a_component_that_panics_is_built_anew_after_growing_pauses_until_it_ends_well() {
        let (process, lives, began) = (CancellationToken::new(), Cell::new(0), Instant::now());
        let started = std::cell::RefCell::new(Vec::new());
        let initial = Duration::from_millis(20);
        let outcome = restarting_after(initial, "test", || {
            lives.set(lives.get() + 1);
            started.borrow_mut().push(began.elapsed());
            let (component, life) = (component(&process), lives.get());
            let own = component.clone();
            (component, async move {
                match life {
                    1 => panic!("in the run itself"),
                    2 => {
                        own.spawn_vital("watch", async { panic!("in a task") });
                        own.stopped().await;
                        Ok(())
                    }
                    _ => Err("no such range"),
                }
            })
        })
        .await;
        assert_eq!(outcome, Err("no such range"));
        let started = started.into_inner();
        assert!(started[1] >= initial && started[2] - started[1] >= 2 * initial, "{started:?}");
        assert!(!process.is_cancelled());
    }
}
