//! The actor's part in a resize: follows what the node grants, has it carried out, tells how far it is.

use jiff::Timestamp;
use reeve_client::EventType;

use super::super::backoff::{after, step_retry};
use super::super::context::about;
use super::super::effects::PodEffects;
use super::super::resize::{InProgress, Resized, event, is_in_progress, job, restarts};
use super::super::state::Condemned;
use super::{Actor, Input, PodNews};

impl Actor {
    /// A pod as the node lets it be.
    pub(super) fn on_news(&mut self, news: PodNews, now: Timestamp) {
        self.told.saw(&news.pod);
        self.on_verdict(&news, now);
        self.on_pod(news.pod);
        if news.granted {
            // Volumes may show the resources.
            self.refresh_volumes();
        }
    }

    /// The word of the node on what the pod wants; the events about it are the node's.
    fn on_verdict(&mut self, news: &PodNews, now: Timestamp) {
        self.state.resize.pending.clone_from(&news.pending);
        if news.granted {
            // An error of what was granted before is none of this one.
            self.state.resize.in_progress = Some(InProgress::begun(news.pod.metadata.generation, now));
            self.state.resize.retry = None;
        }
    }

    /// Marks containers that a resize restarts, and notes its beginning and end.
    pub(super) fn look_at_resize(&mut self, now: Timestamp) {
        if self.state.end.is_some() {
            return;
        }
        for index in restarts(&self.state) {
            let Some(slot) = self.state.slots.get_mut(index) else { continue };
            slot.condemned = Some(Condemned::by_pod(format!("Container {} resize requires restart", slot.name)));
            slot.revive = true;
        }
        let generation = self.state.pod.metadata.generation;
        if is_in_progress(&self.state) {
            self.state.resize.in_progress.get_or_insert_with(|| InProgress::begun(generation, now));
        } else if let Some(done) = self.state.resize.in_progress.take() {
            self.state.resize.retry = None;
            let message = event("Pod resize completed", &self.state.pod, done.generation, "");
            self.node.events.record(&about(&self.state.pod), EventType::Normal, "ResizeCompleted", message);
        }
    }

    pub(super) fn begin_resize(&mut self, effects: PodEffects) {
        let Some(job) = job(&self.state) else { return };
        self.state.resize.under_way = true;
        self.spawn("resize", async move { Input::Resized(Box::new(effects.resize(&job).await)) });
    }

    pub(super) fn on_resized(&mut self, done: Resized, now: Timestamp) {
        let resize = &mut self.state.resize;
        resize.under_way = false;
        resize.group = Some(done.group);
        for (index, id, size) in done.sizes {
            if let Some(slot) = self.state.slots.get_mut(index) {
                slot.resized(&id, size);
            }
        }
        let Some(error) = done.error else {
            resize.retry = None;
            return;
        };
        let failures = resize.retry.map_or(1, |(failures, _)| failures.saturating_add(1));
        resize.retry = Some((failures, after(now, step_retry(failures))));
        let generation = self.state.pod.metadata.generation;
        let in_progress = resize.in_progress.get_or_insert_with(|| InProgress::begun(generation, now));
        if in_progress.failed(error.clone(), now) {
            let message = event("Pod resize error", &self.state.pod, in_progress.generation, &error);
            self.node.events.record(&about(&self.state.pod), EventType::Warning, "ResizeError", message);
        }
    }
}
