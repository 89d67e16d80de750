//! Huge pages: what their sizes are called, how many bytes of them a pod and its containers may use, and which size
//! shows in a volume. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use reeve_api::quantity::{Format, Quantity, QuantityError};

use super::resources::{limit_of_container, limit_of_pod};
use super::state::containers;

/// What stands before the size of a page in the name of its resource.
const RESOURCE_PREFIX: &str = "hugepages-";
/// An emptyDir of the pod's only size of huge pages.
const MEDIUM: &str = "HugePages";
/// What stands before the size of a page in the name of an emptyDir's medium.
const MEDIUM_PREFIX: &str = "HugePages-";

/// Why no size of pages can be found for an emptyDir. Source: kubelet `getPageSizeMountOption`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MediumError {
    #[error("medium: {0} can't be used if container requests multiple huge page sizes")]
    Several(String),
    #[error("medium {0}: hugePages storage requested, but there is no resource request for huge pages")]
    Unasked(String),
    #[error(transparent)]
    Size(#[from] QuantityError),
}

/// Whether a resource is huge pages of some size.
pub(crate) fn is_huge_pages(resource: &str) -> bool {
    resource.starts_with(RESOURCE_PREFIX)
}

/// The resource of pages of so many bytes: `hugepages-2Mi`.
pub(crate) fn resource(page_bytes: u64) -> String {
    format!("{RESOURCE_PREFIX}{}", bytes(page_bytes))
}

/// Bytes as the API writes them.
pub(crate) fn bytes(bytes: u64) -> Quantity {
    Quantity::new(i64::try_from(bytes).unwrap_or(i64::MAX), Format::BinarySi)
}

/// What control groups call pages of so many bytes: `2MB`. Source: the kernel's `hugetlb_cgroup.c`.
fn name_in_groups(page_bytes: u64) -> String {
    let (mut rest, mut units) = (page_bytes, ["B", "KB", "MB", "GB", "TB"].iter());
    let mut unit = units.next();
    while rest >= 1024 && unit != Some(&"TB") {
        (rest, unit) = (rest / 1024, units.next());
    }
    format!("{rest}{}", unit.unwrap_or(&""))
}

/// How much the pod may use of each size that the node has: nothing of what it does not ask for.
/// Source: kubelet `HugePageLimits`.
pub(crate) fn of_pod(spec: &PodSpec, sizes: impl Iterator<Item = u64>) -> BTreeMap<String, u64> {
    limits(sizes, |resource| limit_of_pod(spec, resource))
}

/// The same of a container; where it says nothing, the pod's own limit is its limit.
/// Source: kubelet `GetHugepageLimitsFromResources`.
pub(crate) fn of_container(
    spec: &PodSpec,
    container: &Container,
    sizes: impl Iterator<Item = u64>,
) -> BTreeMap<String, u64> {
    limits(sizes, |resource| limit_of_container(spec, container, resource))
}

fn limits(sizes: impl Iterator<Item = u64>, limit: impl Fn(&str) -> Option<Quantity>) -> BTreeMap<String, u64> {
    let of = |page_bytes: u64| {
        let limit = limit(&resource(page_bytes)).map_or(0, |limit| limit.value());
        (name_in_groups(page_bytes), u64::try_from(limit).unwrap_or(0))
    };
    sizes.map(of).collect()
}

/// Whether an emptyDir of this medium is of huge pages.
pub(crate) fn is_medium(medium: &str) -> bool {
    medium == MEDIUM || medium.starts_with(MEDIUM_PREFIX)
}

/// The size of the pages of an emptyDir: the one that its medium names and the pod asks for, or the only one asked for.
pub(crate) fn page_size(spec: &PodSpec, medium: &str) -> Result<Quantity, MediumError> {
    let named: Option<Quantity> = medium.strip_prefix(MEDIUM_PREFIX).map(str::parse).transpose()?;
    let mut found: Option<Quantity> = None;
    for resource in asked(spec) {
        let Some(size) = resource.strip_prefix(RESOURCE_PREFIX) else { continue };
        let size: Quantity = size.parse()?;
        match named {
            Some(named) if named != size => {}
            None if found.is_some_and(|other| other != size) => return Err(MediumError::Several(medium.to_owned())),
            _ => found = Some(size),
        }
    }
    found.ok_or_else(|| MediumError::Unasked(medium.to_owned()))
}

/// The resources that the pod or one of its containers asks for or is limited in, which of huge pages is the same.
fn asked(spec: &PodSpec) -> impl Iterator<Item = &String> {
    let own = containers(spec).filter_map(|(container, _)| container.resources.as_ref());
    let lists = spec.resources.iter().chain(own);
    lists.flat_map(|own| own.requests.iter().chain(&own.limits)).flat_map(BTreeMap::keys)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SIZES: [u64; 2] = [2 << 20, 1 << 30];

    fn pod(pod: serde_json::Value, containers: &[serde_json::Value]) -> PodSpec {
        let containers: Vec<_> =
            containers.iter().map(|limits| json!({ "name": "c", "resources": both(limits) })).collect();
        serde_json::from_value(json!({ "resources": both(&pod), "containers": containers })).unwrap()
    }

    fn both(limits: &serde_json::Value) -> serde_json::Value {
        json!({ "limits": limits, "requests": limits })
    }

    #[test]
    fn sizes_are_called_as_kubernetes_and_as_the_kernel_call_them() {
        let sizes = [64 << 10, 2 << 20, 32 << 20, 1 << 30, 16 << 30];
        let names = ["hugepages-64Ki", "hugepages-2Mi", "hugepages-32Mi", "hugepages-1Gi", "hugepages-16Gi"];
        assert_eq!(sizes.map(resource), names);
        assert_eq!(sizes.map(name_in_groups), ["64KB", "2MB", "32MB", "1GB", "16GB"]);
    }

    #[test]
    fn nobody_may_use_huge_pages_that_were_not_asked_for() {
        let spec = pod(json!({}), &[json!({ "hugepages-2Mi": "4Mi" }), json!({ "hugepages-2Mi": "2Mi" }), json!({})]);
        let text = |limits: BTreeMap<String, u64>| {
            limits.iter().map(|(size, bytes)| format!("{size}={} ", bytes >> 20)).collect::<String>()
        };
        assert_eq!(text(of_pod(&spec, SIZES.into_iter())), "1GB=0 2MB=6 ");
        let own = |at: usize| text(of_container(&spec, &spec.containers[at], SIZES.into_iter()));
        assert_eq!([own(0), own(2)], ["1GB=0 2MB=4 ", "1GB=0 2MB=0 "]);
        let whole = pod(json!({ "hugepages-1Gi": "1Gi" }), &[json!({})]);
        assert_eq!(text(of_pod(&whole, SIZES.into_iter())), "1GB=1024 2MB=0 ");
        assert_eq!(text(of_container(&whole, &whole.containers[0], SIZES.into_iter())), "1GB=1024 2MB=0 ");
    }

    #[test]
    fn a_volume_has_the_size_that_it_names_or_the_only_one_that_is_asked_for() {
        let (small, large) = (json!({ "hugepages-2Mi": "4Mi" }), json!({ "hugepages-1Gi": "1Gi" }));
        let size = |spec: &PodSpec, medium: &str| match page_size(spec, medium) {
            Ok(size) => size.to_string(),
            Err(error) => error.to_string(),
        };
        let one = pod(json!({}), &[json!({}), small.clone()]);
        let two = pod(large, &[small]);
        let unasked = |medium: &str| {
            format!("medium {medium}: hugePages storage requested, but there is no resource request for huge pages")
        };
        assert_eq!(size(&one, "HugePages"), "2Mi");
        assert_eq!(size(&one, "HugePages-2048Ki"), "2Mi", "however it is written");
        assert_eq!(size(&two, "HugePages-1Gi"), "1Gi");
        assert_eq!(
            size(&two, "HugePages"),
            "medium: HugePages can't be used if container requests multiple huge page sizes"
        );
        assert_eq!(size(&one, "HugePages-1Gi"), unasked("HugePages-1Gi"));
        assert_eq!(size(&pod(json!({}), &[json!({})]), "HugePages"), unasked("HugePages"));
        assert!(size(&one, "HugePages-big").starts_with("quantities must match the regular expression"));
        assert!(is_medium("HugePages-big") && !is_medium("Hugepages"));
    }
}
