//! The images that a pod's volumes show: which they are, who waits for them, and how far they are. No I/O.
//!
//! The rules are those of the kubelet's `getImageVolumes` and `toKubeContainerImageVolumes`: all of a pod's are looked
//! for before one of its containers starts, and each time again; one that cannot be had holds up those containers only
//! that mount it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodSpec;
use reeve_engine::engine::ImageSource;

use super::plan::has_turn;
use super::state::{ImageProblem, ImageStep, PodState, Step};

/// What an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageUse {
    /// The container of this slot stands on it.
    Container(usize),
    /// The volume with this number among those that show images.
    Volume(usize),
}

/// A volume that shows an image.
#[derive(Debug, Clone)]
pub(crate) struct ImageVolume {
    pub(crate) name: String,
    /// The image as the pod names it.
    pub(crate) reference: String,
    pub(crate) pull_policy: Option<String>,
    pub(crate) image: ImageStep,
}

impl ImageVolume {
    /// All of a pod's.
    pub(crate) fn of_pod(spec: &PodSpec) -> Vec<Self> {
        let sources = spec.volumes.iter().flatten().filter_map(|volume| Some((volume, volume.image.as_ref()?)));
        let volumes = sources.map(|(volume, source)| Self {
            name: volume.name.clone(),
            reference: source.reference.clone().unwrap_or_default(),
            pull_policy: source.pull_policy.clone(),
            image: ImageStep::Unknown { failures: 0 },
        });
        volumes.collect()
    }
}

impl PodState {
    /// How far an image is.
    pub(crate) fn image_step_mut(&mut self, of: ImageUse) -> Option<&mut ImageStep> {
        match of {
            ImageUse::Container(slot) => self.slots.get_mut(slot).map(|slot| &mut slot.image),
            ImageUse::Volume(number) => self.image_volumes.get_mut(number).map(|volume| &mut volume.image),
        }
    }

    /// An image as the pod names it, and its pull policy if it says one.
    pub(crate) fn image_wanted(&self, of: ImageUse) -> Option<(&str, Option<&str>)> {
        match of {
            ImageUse::Container(slot) => {
                let container = self.container(slot)?;
                Some((container.image.as_deref().unwrap_or_default(), container.image_pull_policy.as_deref()))
            }
            ImageUse::Volume(number) => {
                let volume = self.image_volumes.get(number)?;
                Some((&volume.reference, volume.pull_policy.as_deref()))
            }
        }
    }

    /// Whether an image was looked for in vain.
    pub(crate) fn has_failed(&self, of: ImageUse) -> bool {
        let image = match of {
            ImageUse::Container(slot) => self.slots.get(slot).map(|slot| &slot.image),
            ImageUse::Volume(number) => self.image_volumes.get(number).map(|volume| &volume.image),
        };
        matches!(image, Some(ImageStep::Failed { .. }))
    }

    /// Everything that an image may be for.
    pub(crate) fn image_uses(&self) -> impl Iterator<Item = ImageUse> + use<> {
        let containers = (0..self.slots.len()).map(ImageUse::Container);
        containers.chain((0..self.image_volumes.len()).map(ImageUse::Volume))
    }

    /// Whether the container of a slot mounts a volume.
    pub(crate) fn mounts(&self, slot: usize, volume: &str) -> bool {
        let mounts = self.container(slot).and_then(|container| container.volume_mounts.as_ref());
        mounts.into_iter().flatten().any(|mount| mount.name == volume)
    }

    /// Names of the containers that cannot start without an image, and would now.
    pub(crate) fn waiting_for(&self, of: ImageUse) -> Vec<String> {
        let waits = |index: usize| match of {
            ImageUse::Container(slot) => slot == index,
            ImageUse::Volume(number) => {
                self.image_volumes.get(number).is_some_and(|volume| self.mounts(index, &volume.name))
            }
        };
        let slots = self.slots.iter().enumerate().filter(|(index, slot)| {
            let over = slot.exit().is_some_and(|exit| !self.restarts_after(slot, exit));
            waits(*index) && has_turn(self, *index) && slot.step == Step::Rest && slot.running().is_none() && !over
        });
        slots.map(|(_, slot)| slot.name.clone()).collect()
    }

    /// Why a slot's container lacks an image, and which: that of a volume (of several the last one that it mounts),
    /// else its own.
    pub(crate) fn image_problem(&self, slot: usize) -> Option<(&ImageProblem, &str)> {
        let container = self.container(slot);
        let mounts = container.and_then(|container| container.volume_mounts.as_ref()).into_iter().flatten();
        let volumes = mounts.filter_map(|mount| self.image_volumes.iter().find(|volume| volume.name == mount.name));
        let mut of_volumes = volumes.filter_map(|volume| Some((volume.image.problem()?, volume.reference.as_str())));
        of_volumes.next_back().or_else(|| {
            let image = container.and_then(|container| container.image.as_deref()).unwrap_or_default();
            Some((self.slots.get(slot)?.image.problem()?, image))
        })
    }

    /// The images of the volumes, as far as they are here, by the volumes' names.
    pub(crate) fn shown_images(&self) -> BTreeMap<String, ImageSource> {
        let here = self.image_volumes.iter().filter_map(|volume| {
            let ImageStep::Ready(image) = &volume.image else { return None };
            let source =
                ImageSource { image: image.id.clone(), reference: volume.reference.clone(), sub_path: String::new() };
            Some((volume.name.clone(), source))
        });
        here.collect()
    }

    /// Has the volumes' images looked for before the next start.
    pub(crate) fn forget_shown_images(&mut self) {
        for volume in &mut self.image_volumes {
            if matches!(volume.image, ImageStep::Ready(_)) {
                volume.image = ImageStep::Unknown { failures: 0 };
            }
        }
    }
}
