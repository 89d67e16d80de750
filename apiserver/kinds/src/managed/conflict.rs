//! Conflicts: fields that an apply would change and that others manage.

use super::entry::ManagerId;
use super::set::{Path, Set, path_text};

/// One field that somebody else manages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Who.
    pub manager: ManagerId,
    /// Which field.
    pub path: Path,
}

impl Conflict {
    /// The message of the cause: `conflict with "kubectl" using apps/v1`.
    #[must_use]
    pub fn message(&self) -> String {
        format!("conflict with {}", self.manager.shown())
    }

    /// The field of the cause: `.spec.replicas`.
    #[must_use]
    pub fn field(&self) -> String {
        path_text(&self.path)
    }
}

/// The message of the refusal, in Kubernetes' words.
#[must_use]
pub fn message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!("Apply failed with 1 conflict: {}: {}", only.message(), only.field());
    }
    let mut managers: Vec<&ManagerId> = conflicts.iter().map(|conflict| &conflict.manager).collect();
    managers.sort();
    managers.dedup();
    let mut lines = Vec::new();
    for manager in managers {
        lines.push(format!("conflicts with {}:", manager.shown()));
        let own = conflicts.iter().filter(|conflict| conflict.manager == *manager);
        lines.extend(own.map(|conflict| format!("- {}", conflict.field())));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// The fields in conflict.
pub(super) fn fields(conflicts: &[Conflict]) -> Set {
    let mut set = Set::default();
    for conflict in conflicts {
        set.insert(&conflict.path);
    }
    set
}
