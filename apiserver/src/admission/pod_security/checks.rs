//! Which checks a level has in which version. Pure. Source: `k8s.io/pod-security-admission/policy`.

use serde_json::Value;

use super::policy::{Level, LevelVersion};
use super::rules;

/// Why a pod is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    /// In a few words.
    pub(super) reason: String,
    /// Which container, which value.
    pub(super) detail: String,
}

/// A check: `None` when the pod passes. The pod may be a template.
pub(super) type Check = fn(&Value) -> Option<Violation>;

/// A check by its versions.
struct Versioned {
    /// For overriding; checks are asked in the order of these, as in Kubernetes.
    id: &'static str,
    /// From which minor version of Kubernetes on which form of it counts; in rising order.
    versions: &'static [(u32, Check)],
    /// Checks of the level below whose place it takes.
    overrides: &'static [&'static str],
}

const fn check(id: &'static str, versions: &'static [(u32, Check)]) -> Versioned {
    Versioned { id, versions, overrides: &[] }
}

const fn overriding(id: &'static str, versions: &'static [(u32, Check)], other: &'static [&'static str]) -> Versioned {
    Versioned { id, versions, overrides: other }
}

const BASELINE: &[Versioned] = &[
    check("appArmorProfile", &[(0, rules::app_armor)]),
    check("capabilities_baseline", &[(0, rules::capabilities_baseline)]),
    check("hostNamespaces", &[(0, rules::host_namespaces)]),
    check("hostPathVolumes", &[(0, rules::host_path_volumes)]),
    check("hostPorts", &[(0, rules::host_ports)]),
    check("hostProbesAndHostLifecycle", &[(34, rules::host_probes)]),
    check("privileged", &[(0, rules::privileged)]),
    check("procMount", &[(0, rules::proc_mount), (35, |pod| rules::in_host_users(pod, rules::proc_mount))]),
    check("seLinuxOptions", &[(0, rules::se_linux), (31, rules::se_linux_1_31)]),
    check("seccompProfile_baseline", &[(0, rules::seccomp_annotations), (19, rules::seccomp_baseline)]),
    check(
        "sysctls",
        &[(0, rules::sysctls_1_0), (27, rules::sysctls_1_27), (29, rules::sysctls_1_29), (32, rules::sysctls_1_32)],
    ),
    check("windowsHostProcess", &[(0, rules::windows_host_process)]),
];

const RESTRICTED: &[Versioned] = &[
    check(
        "allowPrivilegeEscalation",
        &[(8, rules::privilege_escalation), (25, |pod| rules::unless_windows(pod, rules::privilege_escalation))],
    ),
    overriding(
        "capabilities_restricted",
        &[(22, rules::capabilities_restricted), (25, |pod| rules::unless_windows(pod, rules::capabilities_restricted))],
        &["capabilities_baseline"],
    ),
    overriding("procMount_restricted", &[(35, rules::proc_mount)], &["procMount"]),
    overriding("restrictedVolumes", &[(0, rules::restricted_volumes)], &["hostPathVolumes"]),
    check(
        "runAsNonRoot",
        &[(0, rules::run_as_non_root), (35, |pod| rules::in_host_users(pod, rules::run_as_non_root))],
    ),
    check("runAsUser", &[(23, rules::run_as_user), (35, |pod| rules::in_host_users(pod, rules::run_as_user))]),
    overriding(
        "seccompProfile_restricted",
        &[(19, rules::seccomp_restricted), (25, |pod| rules::unless_windows(pod, rules::seccomp_restricted))],
        &["seccompProfile_baseline"],
    ),
];

impl Versioned {
    fn at(&self, version: u32) -> Option<Check> {
        self.versions.iter().rev().find(|(from, _)| *from <= version).map(|(_, check)| *check)
    }
}

/// What a level forbids of a pod, in Kubernetes' order.
pub(super) fn evaluate(asked: LevelVersion, pod: &Value) -> Vec<Violation> {
    let version = asked.version.unwrap_or(u32::MAX);
    let restricted = if asked.level == Level::Restricted { RESTRICTED } else { &[] };
    let restricted: Vec<(&Versioned, Check)> =
        restricted.iter().filter_map(|own| Some((own, own.at(version)?))).collect();
    let is_overridden = |id: &str| restricted.iter().any(|(own, _)| own.overrides.contains(&id));
    let baseline = if asked.level == Level::Privileged { &[] } else { BASELINE };
    let baseline = baseline.iter().filter(|own| !is_overridden(own.id)).filter_map(|own| own.at(version));
    baseline.chain(restricted.iter().map(|(_, check)| *check)).filter_map(|check| check(pod)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::report;
    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
    fn told(level: Level, version: Option<u32>, spec: Value) -> String {
        report::detail(&evaluate(LevelVersion { level, version }, &json!({ "metadata": {}, "spec": spec })))
    }

    #[test]
    fn checks_stand_in_the_order_of_their_ids() {
        for list in [BASELINE, RESTRICTED] {
            assert!(list.is_sorted_by_key(|own| own.id));
            assert!(list.iter().all(|own| own.versions.is_sorted_by_key(|(from, _)| *from)));
        }
    }

    #[test]
    fn an_ordinary_pod_is_refused_by_the_restricted_level_for_four_reasons() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        assert_eq!(told(Level::Privileged, None, spec.clone()), "");
        assert_eq!(told(Level::Baseline, None, spec.clone()), "");
        assert_eq!(
            told(Level::Restricted, None, spec),
            "allowPrivilegeEscalation != false (containers \"a\", \"b\" must set \
             securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers \"a\", \"b\" must \
             set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or containers \"a\", \"b\" \
             must set securityContext.runAsNonRoot=true), seccompProfile (pod or containers \"a\", \"b\" must set \
             securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        );
    }

    #[test]
    fn a_version_asks_what_was_asked_then() {
        let spec = json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "h"}}}]});
        assert_eq!(told(Level::Baseline, Some(33), spec.clone()), "");
        assert_eq!(
            told(Level::Baseline, Some(34), spec),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\")"
        );
        let spec = json!({"os": {"name": "windows"}, "containers": [{"name": "a"}],
            "securityContext": {"runAsNonRoot": true}});
        assert_ne!(told(Level::Restricted, Some(24), spec.clone()), "");
        assert_eq!(told(Level::Restricted, Some(25), spec), "");
        let spec =
            json!({"hostUsers": false, "containers": [{"name": "a", "securityContext": {"procMount": "Unmasked"}}]});
        let unmasked = "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")";
        assert_eq!(told(Level::Baseline, Some(34), spec.clone()), unmasked);
        assert_eq!(told(Level::Baseline, Some(35), spec.clone()), "");
        assert!(told(Level::Restricted, None, spec).contains(unmasked));
    }

    #[test]
    fn a_stricter_check_takes_the_place_of_the_weaker() {
        let spec = json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}], "containers": []});
        assert_eq!(told(Level::Baseline, None, spec.clone()), "hostPath volumes (volume \"v\")");
        assert_eq!(
            told(Level::Restricted, None, spec),
            "restricted volume types (volume \"v\" uses restricted volume type \"hostPath\")"
        );
    }
}
