//! The status of a claim: which devices it got, who uses them, how they are.

use std::collections::BTreeSet;

use serde_json::Value;

use super::claim_spec::{RequestNames, reference, references, request_names};
use super::shared::{self, MAX_CONFIG, binding, each, each_once, itself, label, pool_name, raw, uid};
use crate::errors::Errors;
use crate::json::{at, get, has, list, remove, set, some_mut, text};
use crate::kinds::storage::driver_name;
use crate::meta;
use crate::path::Path;
use crate::{pod, shown};

const MAX_RESERVED: usize = 256;
const MAX_RESULTS: usize = 32;
const MAX_CONDITIONS: usize = 8;
const MAX_IPS: usize = 16;
const MAX_INTERFACE: usize = 256;
const MAX_HARDWARE: usize = 128;

/// What tells one device, or one share of it, from another.
fn device_key(device: &Value) -> String {
    let share = text(device, "shareID");
    let key = ["driver", "pool", "device"].map(|field| text(device, field)).join("/");
    if share.is_empty() { key } else { format!("{key}/{share}") }
}

fn allocated(object: &Value) -> BTreeSet<String> {
    list(at(object, &["status", "allocation", "devices"]), "results").iter().map(device_key).collect()
}

/// Takes the states of devices out that the claim does not have any more.
pub(super) fn drop_deallocated(object: &mut Value, old: &Value) {
    let still = allocated(object);
    let gone: BTreeSet<_> = allocated(old).into_iter().filter(|key| !still.contains(key)).collect();
    let Some(status) = some_mut(object, "status") else { return };
    let kept: Vec<_> = list(status, "devices").iter().filter(|one| !gone.contains(&device_key(one))).cloned().collect();
    if kept.is_empty() {
        remove(status, "devices");
    } else {
        set(status, "devices", kept);
    }
}

/// Checks a new status.
pub(super) fn check(object: &Value, old: &Value, errors: &mut Errors) {
    let (status, was, path) = (get(object, "status"), get(old, "status"), Path::of("status"));
    let (reserved, reserved_path) = (list(status, "reservedFor"), path.child("reservedFor"));
    let key = |user: &Value| text(user, "uid").to_owned();
    each_once(reserved, MAX_RESERVED, key, &reserved_path, errors, |user, path, errors| {
        for field in ["resource", "name", "uid"].into_iter().filter(|field| text(user, field).is_empty()) {
            errors.required(&path.child(field), "");
        }
    });
    let known = allocated(object);
    let devices = list(status, "devices");
    each_once(devices, usize::MAX, device_key, &path.child("devices"), errors, |device, path, errors| {
        device_status(device, &known, path, errors);
    });
    if !reserved.is_empty() && !has(status, "allocation") {
        errors.forbidden(&reserved_path, "may not be specified when `allocated` is not set");
    } else if !at(object, &["metadata", "deletionTimestamp"]).is_null()
        && reserved.iter().any(|user| !list(was, "reservedFor").contains(user))
    {
        let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
        errors.forbidden(&reserved_path, detail);
    }
    let (allocation, path) = (get(status, "allocation"), path.child("allocation"));
    if !allocation.is_null() && has(was, "allocation") {
        errors.immutable(&path, allocation, get(was, "allocation"));
    } else if !allocation.is_null() {
        allocation_rules(allocation, &request_names(get(object, "spec")), &path, errors);
    }
}

fn allocation_rules(allocation: &Value, known: &RequestNames<'_>, path: &Path<'_>, errors: &mut Errors) {
    let (devices, devices_path) = (get(allocation, "devices"), path.child("devices"));
    each(list(devices, "results"), MAX_RESULTS, &devices_path.child("results"), errors, |one, path, errors| {
        reference(text(one, "request"), known, &path.child("request"), errors);
        driver_name(text(one, "driver"), &path.child("driver"), errors);
        pool_name(text(one, "pool"), &path.child("pool"), errors);
        label(text(one, "device"), &path.child("device"), errors);
        binding(one, path, errors);
        if has(one, "shareID") {
            uid(text(one, "shareID"), &path.child("shareID"), errors);
        }
    });
    each(list(devices, "config"), 2 * MAX_CONFIG, &devices_path.child("config"), errors, |one, path, errors| {
        errors.one_of(&path.child("source"), text(one, "source"), &["FromClaim", "FromClass"]);
        references(one, known, path, errors);
        shared::config(one, path, errors);
    });
    if has(allocation, "nodeSelector") {
        pod::node_selector(get(allocation, "nodeSelector"), &path.child("nodeSelector"), errors);
    }
}

fn device_status(device: &Value, known: &BTreeSet<String>, path: &Path<'_>, errors: &mut Errors) {
    driver_name(text(device, "driver"), &path.child("driver"), errors);
    pool_name(text(device, "pool"), &path.child("pool"), errors);
    label(text(device, "device"), &path.child("device"), errors);
    if has(device, "shareID") {
        uid(text(device, "shareID"), &path.child("shareID"), errors);
    }
    if !known.contains(&device_key(device)) {
        let shown = [("Driver", "driver"), ("Pool", "pool"), ("Device", "device"), ("ShareID", "shareID")];
        let shown = shown.map(|(name, own)| (name, Value::from(text(device, own)).to_string()));
        errors.invalid_object(path, shown::object(&shown), "must be an allocated device in the claim");
    }
    let (count, conditions) = (list(device, "conditions").len(), path.child("conditions"));
    if count > MAX_CONDITIONS {
        errors.too_many(&conditions, count, MAX_CONDITIONS);
    }
    meta::conditions(device, &conditions, errors);
    if has(device, "data") {
        raw(get(device, "data"), &path.child("data"), errors);
    }
    if has(device, "networkData") {
        network(get(device, "networkData"), &path.child("networkData"), errors);
    }
}

fn network(data: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (field, max) in [("interfaceName", MAX_INTERFACE), ("hardwareAddress", MAX_HARDWARE)] {
        if text(data, field).len() > max {
            errors.too_long(&path.child(field), max);
        }
    }
    each_once(list(data, "ips"), MAX_IPS, itself, &path.child("ips"), errors, |ip, path, errors| {
        let ip = ip.as_str().unwrap_or_default();
        errors.invalid_each(path, ip, reeve_api::names::interface_address(ip));
    });
}
