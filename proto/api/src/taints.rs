//! Taints and tolerations: which pods a node keeps away.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Whether a toleration covers a taint. An empty effect covers all effects; an empty key with `Exists` covers all keys.
/// Source: `Toleration.ToleratesTaint`.
#[must_use]
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is_or_empty =
        |own: &Option<String>, other: &str| own.as_deref().is_none_or(|own| own.is_empty() || own == other);
    if !is_or_empty(&toleration.effect, &taint.effect) || !is_or_empty(&toleration.key, &taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `KEY OPERATOR VALUE EFFECT` against the taint `gpu=yes:NoSchedule`; `-` for a field that is not there.
    #[track_caller]
    fn check(toleration: &str, expected: bool) {
        let words: Vec<Option<String>> =
            toleration.split(' ').map(|word| (word != "-").then(|| word.to_owned())).collect();
        let [key, operator, value, effect] = words.try_into().expect("four words");
        let toleration = Toleration { key, operator, value, effect, toleration_seconds: None };
        let taint = Taint {
            key: "gpu".to_owned(),
            value: Some("yes".to_owned()),
            effect: "NoSchedule".to_owned(),
            time_added: None,
        };
        assert_eq!(tolerates(&toleration, &taint), expected, "{toleration:?}");
    }

    #[test]
    fn a_toleration_covers_what_it_names_and_what_it_leaves_open() {
        check("gpu Equal yes NoSchedule", true);
        check("gpu - yes -", true);
        check("gpu Exists - NoSchedule", true);
        check("- Exists - -", true);
        check("gpu Equal no NoSchedule", false);
        check("gpu - - -", false);
        check("gpu Exists - NoExecute", false);
        check("disk Exists - -", false);
        check("gpu Near yes -", false);
    }
}
