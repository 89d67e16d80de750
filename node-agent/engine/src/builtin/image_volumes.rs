//! Images that containers show inside: which they are, and their mounts.

use std::os::fd::OwnedFd;

use super::Inner;
use crate::engine::{ContainerConfig, EngineError, ImageSource, Mount, Sandbox};
use crate::snapshot::{Rootfs, VolumeError};
use crate::supervisor::wire::IMAGES_MAX;

/// How CRI runtimes begin what they say of images that they cannot show; the middle is CRI's own word for it.
const FAILED: &str = "failed to mount image volume: ImageVolumeMountFailed";

impl Inner {
    /// Ids of the images that a container is to show, in the order of its mounts.
    pub(super) fn shown_images(&self, config: &ContainerConfig) -> Result<Vec<String>, EngineError> {
        let mut ids = Vec::new();
        for (mount, source) in shown(config) {
            if let Some(why) = complaint(mount) {
                let target = mount.target.display();
                return Err(EngineError::Invalid(format!("{FAILED}: {why} while mount image: {target}")));
            }
            let found = self.images.get(&source.image)?;
            let missing =
                || EngineError::Invalid(format!("{FAILED}: failed to resolve image {:?}: not found", source.image));
            ids.push(found.ok_or_else(missing)?.id);
        }
        if ids.len() > IMAGES_MAX {
            let (count, rule) = (ids.len(), "a container may show at most");
            return Err(EngineError::Invalid(format!("{FAILED}: {count} mounts of images: {rule} {IMAGES_MAX}")));
        }
        Ok(ids)
    }

    /// Mounts a container's root and the images that it shows, in this order.
    pub(super) fn mount_all(
        &self,
        rootfs: &Rootfs,
        config: &ContainerConfig,
        sandbox: &Sandbox,
    ) -> Result<Vec<OwnedFd>, EngineError> {
        let user = self.user_plan(sandbox);
        let mut mounts = vec![match &user {
            Some(user) => self.snapshots.mount_for(rootfs, &user.path, user.ids)?,
            None => self.snapshots.mount(rootfs)?,
        }];
        let user = user.as_ref().map(|user| user.path.as_path());
        for ((_, source), volume) in shown(config).zip(&rootfs.volumes) {
            let mounted = self.snapshots.mount_volume(rootfs, volume, &source.sub_path, user);
            mounts.push(mounted.map_err(|error| failed(source, error))?);
        }
        Ok(mounts)
    }
}

/// The mounts that show images.
fn shown(config: &ContainerConfig) -> impl Iterator<Item = (&Mount, &ImageSource)> {
    config.mounts.iter().filter_map(|mount| Some((mount, mount.image.as_ref()?)))
}

/// What containerd would say of a mount that is more than a look into an image.
fn complaint(mount: &Mount) -> Option<&'static str> {
    if !mount.source.as_os_str().is_empty() {
        return Some("hostpath must be empty");
    }
    (!mount.read_only).then_some("readonly must be true")
}

fn failed(source: &ImageSource, error: VolumeError) -> EngineError {
    match error {
        VolumeError::Image(error) => error.into(),
        of_the_path => {
            let (path, image) = (&source.sub_path, &source.reference);
            EngineError::Invalid(format!(
                "{FAILED}: failed to ensure image subpath {path:?} in {image:?}: {of_the_path}"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_can_only_be_looked_into() {
        let image = Some(ImageSource { image: "x".to_owned(), ..ImageSource::default() });
        let look = Mount { target: "/v".into(), read_only: true, image, ..Mount::default() };
        assert_eq!(complaint(&look), None);
        assert_eq!(complaint(&Mount { source: "/etc".into(), ..look.clone() }), Some("hostpath must be empty"));
        assert_eq!(complaint(&Mount { read_only: false, ..look }), Some("readonly must be true"));
    }
}
