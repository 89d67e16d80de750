//! The order of API versions: v2 before v1, v1 before v1beta2, v1beta2 before v1beta1, v1alpha1, the rest by name.

use std::cmp::{Ordering, Reverse};

/// Compares two versions by their place in discovery: the better one is less.
#[must_use]
pub fn compare(one: &str, other: &str) -> Ordering {
    match (parsed(one), parsed(other)) {
        (Some(one), Some(other)) => Reverse(one).cmp(&Reverse(other)),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => one.cmp(other),
    }
}

/// Stability (2 is stable), major and minor number of `v1`, `v1beta2`.
fn parsed(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (major, rest) = rest.split_at(digits);
    let number = |digits: &str| digits.parse().ok().filter(|_| !digits.starts_with('0'));
    let major = number(major)?;
    for (word, stability) in [("beta", 1), ("alpha", 0)] {
        if let Some(minor) = rest.strip_prefix(word) {
            let plain = minor.bytes().all(|b| b.is_ascii_digit());
            return number(minor).filter(|_| plain).map(|minor| (stability, major, minor));
        }
    }
    rest.is_empty().then_some((2, major, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_in_discovery() {
        let mut versions = vec!["foo1", "v1alpha1", "v12alpha1", "v3beta1", "v11beta2", "v1", "v2", "v10", "foo10"];
        versions.sort_by(|one, other| compare(one, other));
        assert_eq!(versions, ["v10", "v2", "v1", "v11beta2", "v3beta1", "v12alpha1", "v1alpha1", "foo1", "foo10"]);
    }
}
