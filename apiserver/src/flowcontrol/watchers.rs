//! How many watchers hear of a write: guessed by what they watch, selectors left out.
//!
//! Source: `watch_tracker.go` of Kubernetes v1.36.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is watched, as its hash: two that share one make a guess worse, nothing else.
type What = u64;

fn what(group: &str, resource: &str, namespace: &str, name: &str) -> What {
    let mut hasher = DefaultHasher::new();
    (group, resource, namespace, name).hash(&mut hasher);
    hasher.finish()
}

/// The watchers there are. Locked for a few lookups at a time.
#[derive(Debug, Default)]
pub(super) struct Watchers(Mutex<HashMap<What, u32>>);

/// A watcher that counts as long as this lives.
#[derive(Debug)]
pub(crate) struct Watching {
    all: Arc<Watchers>,
    what: What,
}

impl Watchers {
    fn all(&self) -> MutexGuard<'_, HashMap<What, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one.
    pub(super) fn add(self: &Arc<Self>, group: &str, resource: &str, namespace: &str, name: &str) -> Watching {
        let what = what(group, resource, namespace, name);
        *self.all().entry(what).or_default() += 1;
        Watching { all: Arc::clone(self), what }
    }

    /// How many watch this object: by name, by its namespace, or all of the resource.
    pub(super) fn interested(&self, group: &str, resource: &str, namespace: &str, name: &str) -> u32 {
        let all = self.all();
        if all.is_empty() {
            return 0;
        }
        let count = |namespace, name| all.get(&what(group, resource, namespace, name)).copied().unwrap_or(0);
        let mut sum = count("", "");
        if !namespace.is_empty() {
            sum += count(namespace, "");
        }
        if !name.is_empty() {
            sum += count(namespace, name);
        }
        sum
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut all = self.all.all();
        if let Some(count) = all.get_mut(&self.what) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_watch_all_the_namespace_or_the_object_hear_of_it_as_long_as_they_watch() {
        let watchers = Arc::new(Watchers::default());
        let all = watchers.add("", "pods", "", "");
        let namespace = watchers.add("", "pods", "a", "");
        let own = watchers.add("", "pods", "a", "web");
        let others = [watchers.add("", "pods", "b", ""), watchers.add("apps", "pods", "", "")];
        assert_eq!(watchers.interested("", "pods", "a", "web"), 3);
        assert_eq!(watchers.interested("", "pods", "a", ""), 2);
        drop((all, own));
        assert_eq!(watchers.interested("", "pods", "a", "web"), 1);
        drop((namespace, others));
        assert!(watchers.all().is_empty());
    }
}
