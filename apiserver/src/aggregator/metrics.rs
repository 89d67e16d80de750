//! Who is unavailable, for `/metrics`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::table::is_available;
use crate::registry::meta;

/// Counted since the start, by APIService. As many as there are APIServices.
#[derive(Debug, Default)]
pub(crate) struct Availability(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    is_available: BTreeMap<String, bool>,
    /// By name and reason.
    lost: BTreeMap<(String, String), u64>,
}

impl Availability {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in how an APIService is found.
    pub(super) fn set(&self, api_service: &serde_json::Value) {
        let name = meta::text(api_service, "name").to_owned();
        self.state().is_available.insert(name, is_available(api_service));
    }

    /// Counts an APIService that has been available and is no more.
    pub(super) fn count(&self, old: &serde_json::Value, new: &serde_json::Value) {
        if !is_available(old) || is_available(new) {
            return;
        }
        let mut conditions = new["status"]["conditions"].as_array().into_iter().flatten();
        let condition = conditions.rfind(|one| one["type"] == "Available");
        let reason = condition.map_or("UnknownReason", |one| one["reason"].as_str().unwrap_or_default());
        let key = (meta::text(new, "name").to_owned(), reason.to_owned());
        *self.state().lost.entry(key).or_default() += 1;
    }

    /// Forgets an APIService that is gone.
    pub(super) fn keep(&self, is_there: impl Fn(&str) -> bool) {
        self.state().is_available.retain(|name, _| is_there(name));
    }

    /// The labels and values of `aggregator_unavailable_apiservice`.
    pub(crate) fn now(&self) -> Vec<(String, u8)> {
        let line = |(name, is_available): (&String, &bool)| (format!("name=\"{name}\""), u8::from(!is_available));
        self.state().is_available.iter().map(line).collect()
    }

    /// The labels and values of `aggregator_unavailable_apiservice_total`.
    pub(crate) fn so_far(&self) -> Vec<(String, u64)> {
        let line = |((name, reason), count): (&(String, String), &u64)| {
            (format!("name=\"{name}\",reason=\"{reason}\""), *count)
        };
        self.state().lost.iter().map(line).collect()
    }
}
