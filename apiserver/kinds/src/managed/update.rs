//! Who manages what after a write that is no apply.

use std::sync::LazyLock;

use serde_json::Value;

use super::compare::{Comparison, compare, compare_merged, compare_with_empty};
use super::conflict::Conflict;
use super::entry::{Entry, Managed, ManagerId, Operation, is_reset};
use super::items::Misfits;
use super::schema::MergeSchema;
use super::set::Set;

/// More managers of updates than these are merged, the oldest first.
const UPDATERS_MAX: usize = 10;

/// The manager that stands for those that were merged.
const ANCIENT: &str = "ancient-changes";

/// What must be known of the request and the kind.
pub struct Context<'c> {
    /// The version of the request, `apps/v1`.
    pub api_version: &'c str,
    /// The kind's name, `Deployment`.
    pub kind: &'c str,
    /// The subresource that is written; empty for the object itself.
    pub subresource: &'c str,
    /// The kind's schema in that version.
    pub schema: &'c dyn MergeSchema,
    /// Fields that a write of this part does not change: nobody becomes their manager by it.
    pub reset: &'c Set,
    /// The kind's other versions.
    pub versions: &'c dyn Versions,
    /// The time, as it is written into entries.
    pub now: &'c str,
}

/// The other versions of a kind: managers may have written in them.
pub trait Versions {
    /// The schema of that version; `None` when there is no such version.
    fn schema(&self, api_version: &str) -> Option<&dyn MergeSchema>;
    /// An object as it is in that version.
    fn convert(&self, object: &Value, api_version: &str) -> Option<Value>;
}

/// A kind with one version only.
pub struct OneVersion;

impl Versions for OneVersion {
    fn schema(&self, _api_version: &str) -> Option<&dyn MergeSchema> {
        None
    }

    fn convert(&self, _object: &Value, _api_version: &str) -> Option<Value> {
        None
    }
}

impl Context<'_> {
    pub(super) fn id(&self, manager: &str, operation: Operation) -> ManagerId {
        ManagerId {
            manager: if manager.is_empty() { "unknown".to_owned() } else { manager.to_owned() },
            operation,
            api_version: if operation == Operation::Update { self.api_version.to_owned() } else { String::new() },
            subresource: self.subresource.to_owned(),
        }
    }
}

/// What nobody manages: it is what makes the object the one it is.
pub(super) fn never_managed() -> &'static Set {
    static NEVER: LazyLock<Set> = LazyLock::new(|| Set::of(NEVER_MANAGED));
    &NEVER
}

const NEVER_MANAGED: &[&[&str]] = &[
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

/// The managers that hold before the write: the object's own, those the client sends, or none after a reset.
///
/// `sent` and `live` are `metadata.managedFields` of the new and of the former object.
#[must_use]
pub fn before(live: &Value, sent: &Value, subresource: &str) -> Managed {
    if !subresource.is_empty() || sent == live || sent.is_null() {
        return Managed::stored(live).unwrap_or_default();
    }
    if is_reset(sent) {
        return Managed::default();
    }
    match Managed::decode(sent) {
        Ok(managed) if !managed.entries.is_empty() => managed,
        _ => Managed::stored(live).unwrap_or_default(),
    }
}

/// Who manages what after a write; `live` is `None` for an object that did not exist. Both without managed fields.
///
/// # Errors
/// When the objects do not fit the schema. Kubernetes forgets all managers then.
pub fn update(
    context: &Context<'_>,
    live: Option<&Value>,
    new: &Value,
    managed: Managed,
    manager: &str,
) -> Result<Managed, Misfits> {
    if managed.entries.is_empty() && live.is_some() {
        // An object whose managers are not known: nobody starts to be tracked by an update.
        return Ok(managed);
    }
    track(context, live, new, managed, manager)
}

/// As [`update`], and starts to track.
pub(super) fn track(
    context: &Context<'_>,
    live: Option<&Value>,
    new: &Value,
    mut managed: Managed,
    manager: &str,
) -> Result<Managed, Misfits> {
    let found = match live {
        Some(live) => compare(context.schema, live, new)?,
        None => compare_with_empty(context.schema, new)?,
    };
    let found = found.without(context.reset);
    if managed.entries.is_empty() && found.is_same() {
        return Ok(managed);
    }
    let changed = found.modified.union(&found.added);
    let own = context.id(manager, Operation::Update);
    let changed_by_own = changed.difference(never_managed());
    let covered = managed.get(&own).is_some_and(|entry| entry.covers(&changed_by_own));
    let found = vec![(context.api_version.to_owned(), found)];
    let mut versions = ByVersion { context, live, new, is_merged: false, found };
    let mut kept = Vec::with_capacity(managed.entries.len() + 1);
    for mut entry in managed.entries {
        let Some(found) = versions.at(&entry.version)? else { continue };
        let changed = if entry.version == context.api_version { changed.clone() } else { found.changed() };
        let stays = covered && entry.id == own;
        if (!stays && entry.overlaps(&changed)) || entry.overlaps(&found.removed) {
            let mut set = entry.set();
            if !stays {
                set = set.difference(&changed);
            }
            entry.put(set.difference(&found.removed));
        }
        kept.push(entry);
    }
    managed = Managed { entries: kept };
    managed.drop_empty();
    if !changed_by_own.is_empty() {
        let now = Some(context.now.to_owned());
        match managed.get_mut(&own) {
            Some(entry) => {
                if !covered {
                    entry.put(entry.set().union(&changed_by_own));
                }
                entry.time = now;
            }
            None => managed.put(Entry::new(own, context.api_version, changed_by_own, now)),
        }
    }
    cap(&mut managed);
    Ok(managed)
}

impl Comparison {
    fn changed(&self) -> Set {
        self.modified.union(&self.added)
    }
}

/// What has changed, in each version that some manager has written; made when it is asked for.
pub(super) struct ByVersion<'c> {
    pub(super) context: &'c Context<'c>,
    pub(super) live: Option<&'c Value>,
    pub(super) new: &'c Value,
    /// Whether the new state is what an apply has merged.
    pub(super) is_merged: bool,
    pub(super) found: Vec<(String, Comparison)>,
}

impl ByVersion<'_> {
    /// `None`: there is no such version any more.
    pub(super) fn at(&mut self, version: &str) -> Result<Option<&Comparison>, Misfits> {
        if let Some(at) = self.found.iter().position(|(own, _)| own == version) {
            return Ok(Some(&self.found[at].1));
        }
        let versions = self.context.versions;
        let (Some(schema), Some(new)) = (versions.schema(version), versions.convert(self.new, version)) else {
            return Ok(None);
        };
        let found = match self.live.map(|live| versions.convert(live, version)) {
            Some(Some(live)) if self.is_merged => compare_merged(schema, &live, &new)?,
            Some(Some(live)) => compare(schema, &live, &new)?,
            Some(None) => return Ok(None),
            None => compare_with_empty(schema, &new)?,
        };
        self.found.push((version.to_owned(), found.without(self.context.reset)));
        Ok(self.found.last().map(|(_, found)| found))
    }
}

/// Takes from all managers but one what the write changed and removed; tells of what they had, when that is no
/// matter of course.
///
/// # Errors
/// When the objects do not fit the schema.
pub(super) fn take_over(
    versions: &mut ByVersion<'_>,
    managed: &mut Managed,
    own: &ManagerId,
    force: bool,
) -> Result<Vec<Conflict>, Misfits> {
    let (mut kept, mut conflicts) = (Vec::with_capacity(managed.entries.len()), Vec::new());
    for mut entry in std::mem::take(&mut managed.entries) {
        if entry.id == *own {
            kept.push(entry);
            continue;
        }
        let Some(found) = versions.at(&entry.version)? else { continue };
        let changed = found.changed();
        if entry.overlaps(&changed) || entry.overlaps(&found.removed) {
            let set = entry.set();
            let lost = set.intersection(&changed);
            conflicts.extend(lost.paths().into_iter().map(|path| Conflict { manager: entry.id.clone(), path }));
            entry.put(set.difference(&lost).difference(&found.removed));
        }
        kept.push(entry);
    }
    managed.entries = kept;
    if force || conflicts.is_empty() {
        managed.drop_empty();
        conflicts.clear();
    }
    Ok(conflicts)
}

/// Merges the oldest entries of updates, version by version, until there are few enough.
fn cap(managed: &mut Managed) {
    let updaters = managed.updaters();
    let mut count = updaters.len();
    let mut first_of: Vec<(String, ManagerId)> = Vec::new();
    for id in updaters {
        if count <= UPDATERS_MAX {
            return;
        }
        let Some(at) = managed.entries.iter().position(|entry| entry.id == id) else { continue };
        let version = managed.entries[at].version.clone();
        let Some((_, first)) = first_of.iter().find(|(own, _)| *own == version) else {
            first_of.push((version, id));
            continue;
        };
        let bucket = ManagerId {
            manager: ANCIENT.to_owned(),
            operation: Operation::Update,
            api_version: version.clone(),
            subresource: String::new(),
        };
        if id == bucket {
            continue;
        }
        let merged = managed.entries.remove(at);
        let mut set = merged.set();
        if let Some(at) = managed.entries.iter().position(|entry| entry.id == bucket) {
            set = set.union(&managed.entries.remove(at).set());
        } else if let Some(at) = managed.entries.iter().position(|entry| entry.id == *first) {
            set = set.union(&managed.entries.remove(at).set());
        }
        managed.entries.push(Entry::new(bucket, &version, set, merged.time));
        count -= 1;
    }
}
