//! Keeps flow control true: follows its objects, gives out seats anew from time to time.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::FlowControl;
use super::demand::PERIOD;
use crate::cache::ResourceCache;
use crate::registry::Registry;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// The stored objects.
struct Objects {
    levels: Arc<ResourceCache>,
    schemas: Arc<ResourceCache>,
}

impl Objects {
    fn of(registry: &Registry) -> Option<Self> {
        let storage = |plural| Some(Arc::clone(&registry.resource(GROUP, "v1", plural)?.storage));
        Some(Self { levels: storage("prioritylevelconfigurations")?, schemas: storage("flowschemas")? })
    }

    fn load(&self, control: &FlowControl) {
        let values = |storage: &ResourceCache| {
            storage.snapshot().objects.values().map(|object| object.value()).collect::<Vec<_>>()
        };
        control.configure(values(&self.levels), values(&self.schemas));
    }
}

/// Takes over the objects that there are, and follows them until `stop`. Needs a Tokio runtime.
pub(crate) fn spawn(control: &Arc<FlowControl>, registry: &Arc<Registry>, stop: CancellationToken) {
    let Some(objects) = Objects::of(registry) else { return };
    objects.load(control);
    let (control, cache) = (Arc::clone(control), Arc::clone(&registry.cache));
    let mut progress = cache.progress();
    let keep = async move {
        let revisions = || (objects.levels.snapshot().revision, objects.schemas.snapshot().revision);
        let mut known = revisions();
        let mut next = Instant::now() + PERIOD;
        loop {
            let asleep = control.asleep.load(Ordering::Acquire);
            tokio::select! {
                changed = progress.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let found = revisions();
                    if found != known {
                        known = found;
                        objects.load(&control);
                    }
                }
                () = control.common.drained.notified() => objects.load(&control),
                // After a rest the last round is long over.
                () = control.busy.notified() => next = Instant::now(),
                () = tokio::time::sleep_until(next), if !asleep => {
                    next = Instant::now() + PERIOD;
                    let is_at_rest = control.rebalance();
                    control.asleep.store(is_at_rest, Ordering::Release);
                }
            }
        }
    };
    tokio::spawn(async move { stop.run_until_cancelled(keep).await });
}
