//! The actor and its probes: when they run, and what follows from what they find.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::super::state::Condemned;
use super::Actor;
use crate::probe::{self, ProbeKind, ProbeTarget};

/// Ends the probes of one life of a container. Dropping it ends them all.
#[derive(Debug, Default)]
pub(super) struct ProbeEnds {
    /// Those of liveness and startup, which may have the container restarted.
    restarting: CancellationToken,
    readiness: CancellationToken,
}

impl ProbeEnds {
    fn of(&self, kind: ProbeKind) -> &CancellationToken {
        match kind {
            ProbeKind::Startup | ProbeKind::Liveness => &self.restarting,
            ProbeKind::Readiness => &self.readiness,
        }
    }
}

impl Drop for ProbeEnds {
    fn drop(&mut self) {
        self.restarting.cancel();
        self.readiness.cancel();
    }
}

impl Actor {
    pub(super) fn condemn(&mut self, index: usize, container: &str, message: impl FnOnce(&str) -> String) {
        let Some(slot) = self.state.slots.get_mut(index) else { return };
        if slot.running().is_some_and(|life| life.container == container) && slot.condemned.is_none() {
            slot.condemned = Some(Condemned::by_probe(message(&slot.name)));
        }
    }

    pub(super) fn on_probe(&mut self, index: usize, container: &str, kind: ProbeKind, healthy: bool) {
        let has_readiness = self.state.container(index).is_some_and(|spec| spec.readiness_probe.is_some());
        let Some(slot) = self.state.slots.get_mut(index) else { return };
        if slot.running().is_none_or(|life| life.container != container) {
            return;
        }
        match (kind, healthy) {
            (ProbeKind::Startup, true) => {
                slot.health.started = true;
                slot.health.ready = !has_readiness;
                self.start_probes(index);
            }
            (ProbeKind::Readiness, healthy) => slot.health.ready = healthy && slot.health.started,
            (ProbeKind::Liveness, true) => {}
            (ProbeKind::Startup | ProbeKind::Liveness, false) => {
                let probe = kind.title().to_ascii_lowercase();
                self.condemn(index, container, |name| {
                    format!("Container {name} failed {probe} probe, will be restarted")
                });
            }
        }
    }

    /// Starts the probes of a container's current life: startup alone, or the others once it has started.
    pub(super) fn start_probes(&mut self, index: usize) {
        let Some(spec) = self.state.container(index).cloned() else { return };
        let Some(slot) = self.state.slots.get(index) else { return };
        let Some(life) = slot.running() else { return };
        let kinds: &[ProbeKind] =
            if slot.health.started { &[ProbeKind::Liveness, ProbeKind::Readiness] } else { &[ProbeKind::Startup] };
        let target = ProbeTarget {
            node: Arc::clone(&self.node),
            pod: Arc::clone(&self.state.pod),
            container_id: life.container.clone(),
            container: Arc::new(spec),
            slot: index,
            pod_ip: self.state.ips.first().copied(),
        };
        let ends = ProbeEnds::default();
        let ending = self.state.end.is_some();
        for kind in kinds {
            let wanted = super::super::state::probe(&target.container, *kind).is_some();
            if wanted && (!ending || *kind == ProbeKind::Readiness) {
                probe::start(target.clone(), *kind, self.inputs.clone(), ends.of(*kind).clone());
            }
        }
        self.probes.insert(index, ends);
    }

    /// The pod ends: nothing is restarted any more, but whether it takes requests is asked until it is gone.
    /// Source: kubelet `StopLivenessAndStartup`.
    pub(super) fn stop_restarting_probes(&self) {
        for ends in self.probes.values() {
            ends.restarting.cancel();
        }
    }

    /// Probes of containers that were running before the agent was.
    pub(super) fn resume_probes(&mut self) {
        for index in 0..self.state.slots.len() {
            self.start_probes(index);
        }
    }
}
