//! The places of this server's own groups among all groups.
//!
//! Source: the tables of `kube-apiserver` 1.36 (`DefaultGenericAPIServicePriorities`, `apiVersionPriorities`).

/// Where a group and version stands: higher numbers come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Priority {
    /// Among groups.
    pub(crate) group: i64,
    /// Among the versions of its group.
    pub(crate) version: i64,
}

/// Where custom resources stand.
pub(crate) const CUSTOM: Priority = Priority { group: 1000, version: 100 };

/// The group of APIServices themselves: above all that an APIService can ask for.
pub(crate) const REGISTRATION: (&str, &str, Priority) =
    ("apiregistration.k8s.io", "v1", Priority { group: 20_001, version: 0 });

/// Group, version and place of all other built-in groups.
pub(crate) const BUILTIN: &[(&str, &str, i64, i64)] = &[
    ("", "v1", 18_000, 1),
    ("apps", "v1", 17_800, 15),
    ("events.k8s.io", "v1", 17_750, 15),
    ("authentication.k8s.io", "v1", 17_700, 15),
    ("authorization.k8s.io", "v1", 17_600, 15),
    ("autoscaling", "v1", 17_500, 15),
    ("autoscaling", "v2", 17_500, 30),
    ("batch", "v1", 17_400, 15),
    ("certificates.k8s.io", "v1", 17_300, 15),
    ("networking.k8s.io", "v1", 17_200, 15),
    ("policy", "v1", 17_100, 15),
    ("rbac.authorization.k8s.io", "v1", 17_000, 15),
    ("storage.k8s.io", "v1", 16_800, 15),
    ("apiextensions.k8s.io", "v1", 16_700, 15),
    ("admissionregistration.k8s.io", "v1", 16_700, 15),
    ("scheduling.k8s.io", "v1", 16_600, 15),
    ("coordination.k8s.io", "v1", 16_500, 15),
    ("node.k8s.io", "v1", 16_300, 15),
    ("discovery.k8s.io", "v1", 16_200, 15),
    ("resource.k8s.io", "v1", 16_200, 21),
    ("flowcontrol.apiserver.k8s.io", "v1", 16_100, 21),
];

/// The place of a built-in group and version; `None` for all others.
pub(crate) fn builtin(group: &str, version: &str) -> Option<Priority> {
    let (own_group, own_version, priority) = REGISTRATION;
    if (group, version) == (own_group, own_version) {
        return Some(priority);
    }
    let found = BUILTIN.iter().find(|(own, of, ..)| *own == group && *of == version);
    found.map(|(_, _, group, version)| Priority { group: *group, version: *version })
}
