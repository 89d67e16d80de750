//! The actor's way out: starts what the plan decided, each in a task of its own.

use std::sync::Arc;

use jiff::Timestamp;

use super::super::effects::{PodEffects, StartJob};
use super::super::image::Wanted;
use super::super::image_volumes::ImageUse;
use super::super::plan::Effect;
use super::super::state::{Drain, ImageStep, SandboxStep, Step, VolumesStep, target_of};
use super::{Actor, Input};

impl Actor {
    pub(super) fn begin(&mut self, effect: Effect, now: Timestamp) {
        let effects = self.effects();
        match effect {
            Effect::CreateSandbox { attempt } => {
                self.state.sandbox = SandboxStep::Creating;
                self.spawn(
                    "sandbox",
                    async move { Input::Sandbox(effects.create_sandbox(attempt).await.map(Box::new)) },
                );
            }
            Effect::MountVolumes => {
                self.state.volumes = VolumesStep::Mounting;
                self.spawn("volumes", async move { Input::Volumes(effects.set_up_volumes().await) });
            }
            Effect::FetchImage { of } => self.begin_fetch(of, effects),
            Effect::StartContainer { slot, attempt } => self.begin_start(slot, attempt, effects, now),
            Effect::StopContainer { slot, container, grace, message } => {
                let Some(spec) = self.state.container(slot).cloned() else { return };
                if let Some(slot) = self.state.slots.get_mut(slot) {
                    slot.step = Step::Stopping { grace };
                }
                effects.tell_killing(&spec.name, message);
                self.spawn("stop", async move {
                    let ended = effects.stop(&spec, &container, grace).await;
                    Input::Stopped { slot, id: container, container: ended.map(Box::new) }
                });
            }
            Effect::Resize => self.begin_resize(effects),
            Effect::Drain => {
                self.set_end(|end| end.drain = Drain::UnderWay);
                self.spawn("drain", async move {
                    effects.drain().await;
                    Input::Drained
                });
            }
            Effect::Teardown { remove } => {
                self.set_end(|end| end.tearing_down = true);
                let sandbox = match &self.state.sandbox {
                    SandboxStep::Ready { id } | SandboxStep::Stopped { id } => Some(id.clone()),
                    _ => None,
                };
                self.spawn("teardown", async move {
                    Input::TornDown { removed: remove, result: effects.tear_down(sandbox, remove).await }
                });
            }
            // Its status must be written first: the last word on exit codes.
            Effect::DeleteObject if self.writing || self.is_unwritten(now) => {}
            Effect::DeleteObject => {
                self.set_end(|end| end.deleting = true);
                self.spawn("delete", async move { Input::Deleted(effects.delete_object().await) });
            }
            Effect::TellPullBackoff { of } => {
                if let Some(ImageStep::Failed { problem, .. }) = self.state.image_step_mut(of) {
                    problem.backs_off = true;
                }
                if let Some(wanted) = Wanted::of(&self.state, of) {
                    wanted.tell_backoff(&self.node);
                }
            }
            Effect::TellCrashBackoff { slot, until } => {
                if let Some(slot) = self.state.slots.get_mut(slot) {
                    slot.backoff_told = Some(until);
                    effects.tell_crash_backoff(&slot.name);
                }
            }
        }
    }

    fn begin_fetch(&mut self, of: ImageUse, effects: PodEffects) {
        let Some(wanted) = Wanted::of(&self.state, of) else { return };
        let Some(image) = self.state.image_step_mut(of) else { return };
        let (failures, before) = match std::mem::replace(image, ImageStep::Unknown { failures: 0 }) {
            ImageStep::Unknown { failures } => (failures, None),
            ImageStep::Fetching { failures, before } => (failures, before),
            ImageStep::Failed { failures, problem, .. } => (failures, Some(problem)),
            ImageStep::Ready(_) => (0, None),
        };
        *image = ImageStep::Fetching { failures, before };
        self.spawn("image", async move {
            let result = effects.fetch_image(&wanted).await.map(Box::new);
            Input::Image { of, result }
        });
    }

    fn begin_start(&mut self, index: usize, attempt: u32, effects: PodEffects, now: Timestamp) {
        let Some(container) = self.state.container(index).cloned() else { return };
        let SandboxStep::Ready { id: sandbox } = self.state.sandbox.clone() else { return };
        let remove = self.dead.remove(&index).unwrap_or_default();
        let Some(slot) = self.state.slots.get_mut(index) else { return };
        let ImageStep::Ready(image) = slot.image.clone() else { return };
        if let Some(finished) = slot.exit().map(|exit| exit.finished_at) {
            slot.backoff.restarted(finished, now);
        }
        // One dead life is kept for `logs --previous`; the one before it goes.
        if let Some(last) = slot.last.as_ref().filter(|_| slot.exit().is_some()) {
            self.dead.entry(index).or_default().push(last.container.clone());
        }
        slot.step = Step::Starting;
        let remove = [remove, self.dead.remove(&index).unwrap_or_default()].concat();
        let mounted = Arc::clone(&self.mounted);
        let target = target_of(self.state.spec(), &container.name).map(str::to_owned);
        let target = target.map(|name| (self.running_container(&name), name));
        let images = self.state.shown_images();
        let job = StartJob { sandbox, container, attempt, image: *image, mounted, images, remove, target };
        self.spawn("start", async move { Input::Started { slot: index, attempt, result: effects.start(job).await } });
    }

    /// Id of the container of that name, if it runs.
    fn running_container(&self, name: &str) -> Option<String> {
        let slot = self.state.slots.iter().find(|slot| slot.name == name)?;
        slot.running().map(|life| life.container.clone())
    }

    /// Images came or went on the node: whoever waits for one that is here now need not wait any longer.
    pub(super) fn look_for_images(&self) {
        for of in self.state.image_uses() {
            let Some(wanted) = Wanted::of(&self.state, of) else { continue };
            if !self.state.has_failed(of) || wanted.policy == "Always" {
                continue;
            }
            let image = wanted.image;
            let node = Arc::clone(&self.node);
            self.spawn("image", async move {
                let announced = node.peers.as_ref().is_some_and(|peers| peers.is_announced(&image));
                let here = announced || matches!(node.engine.image_status(&image).await, Ok(Some(_)));
                Input::ImageSeen { of, here }
            });
        }
    }
}
