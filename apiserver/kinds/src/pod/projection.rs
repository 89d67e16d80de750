//! Rules for projected volumes: several sources in one folder.
//!
//! Sources that need kinds Reeve does not serve (ClusterTrustBundle, PodCertificateRequest) are dropped before the
//! rules, as Kubernetes does while they are off.

use std::collections::BTreeSet;

use serde_json::Value;

use super::volume::{downward_files, items, local_unreserved_path, mode, required};
use crate::errors::Errors;
use crate::json::{get, has, int, list, text};
use crate::path::Path;

/// Shortest and longest life of a token, in seconds.
const TOKEN_SECONDS: std::ops::RangeInclusive<i64> = 600..=1 << 32;

/// Rules for `projected` of a volume.
pub(super) fn rules(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    mode(source, "defaultMode", path, errors);
    let (sources, mut taken) = (path.child("sources"), BTreeSet::new());
    for (index, one) in list(source, "sources").iter().enumerate() {
        let here = sources.index(index);
        let mut count = 0;
        for kind in ["secret", "configMap", "downwardAPI"].into_iter().filter(|kind| has(one, kind)) {
            count += 1;
            let part = get(one, kind);
            let owner = if kind == "downwardAPI" { None } else { Some(text(part, "name")) };
            files(part, owner, &here.child(kind), path, &mut taken, errors);
        }
        if has(one, "serviceAccountToken") {
            count += 1;
            token(get(one, "serviceAccountToken"), &here.child("serviceAccountToken"), path, errors);
        }
        if count > 1 {
            errors.forbidden(&here, "may not specify more than 1 volume type per source");
        }
    }
}

/// Files of one source; `owner` is the ConfigMap or Secret that complaints about a name taken twice show.
fn files<'v>(
    part: &'v Value,
    owner: Option<&str>,
    path: &Path<'_>,
    volume: &Path<'_>,
    taken: &mut BTreeSet<&'v str>,
    errors: &mut Errors,
) {
    if owner.is_some() {
        required(part, &["name"], path, errors);
        items(part, path, errors);
    } else {
        downward_files(part, path, errors);
    }
    for file in list(part, "items").iter().map(|item| text(item, "path")).filter(|file| !file.is_empty()) {
        if !taken.insert(file) {
            errors.invalid(volume, owner.unwrap_or(file), "conflicting duplicate paths");
        }
    }
}

fn token(part: &Value, path: &Path<'_>, volume: &Path<'_>, errors: &mut Errors) {
    let (seconds, expiry) = (int(part, "expirationSeconds").unwrap_or_default(), path.child("expirationSeconds"));
    if seconds < *TOKEN_SECONDS.start() {
        errors.invalid(&expiry, seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > *TOKEN_SECONDS.end() {
        errors.invalid(&expiry, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    let (file, path) = (text(part, "path"), volume.child("path"));
    if file.is_empty() {
        errors.required(&path, "");
    } else {
        local_unreserved_path(file, &path, errors);
    }
}
