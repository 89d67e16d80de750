//! What runtimes of earlier versions lack, where CRI has no word for it. Pure.

/// Since when runtimes show images in containers; before, they pass over that part of a mount.
const IMAGE_VOLUMES_SINCE: [(&str, (u32, u32)); 2] = [("containerd", (2, 1)), ("cri-o", (1, 31))];

/// Why a runtime (`containerd://1.7.24`) cannot show an image in a container; `None` where it can, or nobody knows.
pub(super) fn no_image_volumes(runtime: &str) -> Option<String> {
    let (name, version) = runtime.split_once("://")?;
    let (_, (major, minor)) = IMAGE_VOLUMES_SINCE.iter().find(|(known, _)| *known == name)?;
    let mut numbers = version.trim_start_matches('v').split(|other: char| !other.is_ascii_digit());
    let mut number = || numbers.next()?.parse::<u32>().ok();
    let own = (number()?, number()?);
    (own < (*major, *minor))
        .then(|| format!("image volumes are not supported by {runtime}: {name} has them since {major}.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_that_would_pass_over_an_image_are_not_asked() {
        let why = no_image_volumes("containerd://1.7.24~ds1").expect("too old");
        assert_eq!(why, "image volumes are not supported by containerd://1.7.24~ds1: containerd has them since 2.1");
        for runtime in ["containerd://v2.0.5", "cri-o://1.30.9"] {
            assert!(no_image_volumes(runtime).is_some(), "{runtime}");
        }
        for runtime in ["containerd://v2.1.0", "containerd://2.10.0-rc.1", "cri-o://1.31.0", "reeve://0.1.0", "x"] {
            assert_eq!(no_image_volumes(runtime), None, "{runtime}");
        }
    }
}
