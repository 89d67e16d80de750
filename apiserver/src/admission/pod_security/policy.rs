//! What a namespace's labels ask for. Pure. Source: `k8s.io/pod-security-admission/api`.

use std::fmt;

use reeve_kinds::field::{FieldError, FieldErrorKind};
use serde_json::Value;

use crate::registry::meta;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How strict; in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// As of which minor version of Kubernetes; `None` is the latest.
pub(super) type Version = Option<u32>;

/// A level as it was in a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LevelVersion {
    pub(super) level: Level,
    pub(super) version: Version,
}

/// The levels of a namespace. What would be audited is read for its errors only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) enforce: LevelVersion,
    pub(super) audit: LevelVersion,
    pub(super) warn: LevelVersion,
}

impl Default for Policy {
    fn default() -> Self {
        let all = LevelVersion { level: Level::Privileged, version: None };
        Self { enforce: all, audit: all, warn: all }
    }
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

fn level(text: &str) -> Result<Level, &'static str> {
    match text {
        "privileged" => Ok(Level::Privileged),
        "baseline" => Ok(Level::Baseline),
        "restricted" => Ok(Level::Restricted),
        _ => Err("must be one of privileged, baseline, restricted"),
    }
}

fn version(text: &str) -> Result<Version, &'static str> {
    if text == "latest" {
        return Ok(None);
    }
    let minor = text.strip_prefix("v1.").filter(|minor| {
        let is_number = !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit());
        is_number && (*minor == "0" || !minor.starts_with('0'))
    });
    // What no number holds is later than all there is.
    let number = |minor: &str| minor.parse().unwrap_or(u32::MAX);
    minor.map(|minor| Some(number(minor))).ok_or(r#"must be "latest" or "v1.x""#)
}

impl Policy {
    /// The policy of a namespace, and what is wrong with its labels. Where a label is wrong the strictest is enforced,
    /// and nothing is said.
    pub(super) fn of(namespace: &Value) -> (Self, Vec<FieldError>) {
        let labels = meta::get(namespace, "labels");
        let text = |name: &str| labels[format!("{PREFIX}{name}")].as_str();
        let (mut policy, mut errors) = (Self::default(), Vec::new());
        let mut complain = |name: &str, value: &str, why: &str| {
            let field = format!("metadata.labels[{PREFIX}{name}]");
            errors.push(FieldError::new(FieldErrorKind::Invalid, field, value, why));
        };
        let mut states_enforce = false;
        let modes: [(&str, &str, &mut LevelVersion, Level); 3] = [
            ("enforce", "enforce-version", &mut policy.enforce, Level::Restricted),
            ("audit", "audit-version", &mut policy.audit, Level::Privileged),
            ("warn", "warn-version", &mut policy.warn, Level::Privileged),
        ];
        for (mode, mode_version, asked, when_wrong) in modes {
            if let Some(value) = text(mode) {
                asked.level = level(value).unwrap_or_else(|why| {
                    complain(mode, value, why);
                    when_wrong
                });
                states_enforce |= mode == "enforce" && level(value).is_ok();
            }
            if let Some(value) = text(mode_version) {
                asked.version = version(value).unwrap_or_else(|why| {
                    complain(mode_version, value, why);
                    None
                });
            }
        }
        // Whoever enforces a level wants to hear of it where it is not enforced: at templates.
        if text("warn").is_none() && states_enforce && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if text("warn-version").is_none() {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }

    /// Whether nothing is asked for.
    pub(super) fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|asked| asked.level == Level::Privileged)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn read(labels: &[(&str, &str)]) -> (String, Vec<String>) {
        let labels: Map<String, Value> =
            labels.iter().map(|(name, value)| (format!("{PREFIX}{name}"), json!(value))).collect();
        let (policy, errors) = Policy::of(&json!({ "metadata": { "labels": labels } }));
        let text = format!("{} {} {}", policy.enforce, policy.audit, policy.warn);
        (text, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn labels_say_the_levels_and_warnings_follow_what_is_enforced() {
        for (labels, policy) in [
            (&[][..], "privileged:latest privileged:latest privileged:latest"),
            (&[("enforce", "baseline")], "baseline:latest privileged:latest baseline:latest"),
            (
                &[("enforce", "restricted"), ("enforce-version", "v1.24")],
                "restricted:v1.24 privileged:latest restricted:v1.24",
            ),
            (&[("enforce", "baseline"), ("warn", "privileged")], "baseline:latest privileged:latest privileged:latest"),
            (&[("enforce", "baseline"), ("warn-version", "v1.0")], "baseline:latest privileged:latest baseline:v1.0"),
            (&[("audit", "restricted"), ("warn", "baseline")], "privileged:latest restricted:latest baseline:latest"),
        ] {
            assert_eq!(read(labels), (policy.to_owned(), vec![]), "{labels:?}");
        }
    }

    #[test]
    fn wrong_labels_are_told_and_fail_closed_only_where_pods_are_refused() {
        let (policy, errors) = read(&[("enforce", "x"), ("enforce-version", "1.2"), ("warn", "y"), ("audit", "z")]);
        assert_eq!(policy, "restricted:latest privileged:latest privileged:latest");
        assert_eq!(
            errors,
            [
                r#"metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "x": must be one of privileged, baseline, restricted"#,
                r#"metadata.labels[pod-security.kubernetes.io/enforce-version]: Invalid value: "1.2": must be "latest" or "v1.x""#,
                r#"metadata.labels[pod-security.kubernetes.io/audit]: Invalid value: "z": must be one of privileged, baseline, restricted"#,
                r#"metadata.labels[pod-security.kubernetes.io/warn]: Invalid value: "y": must be one of privileged, baseline, restricted"#,
            ]
        );
        for bad in ["v1.01", "v1.", "v2.1", "V1.1", "v1.1 "] {
            assert!(version(bad).is_err(), "{bad}");
        }
    }
}
