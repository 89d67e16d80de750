//! What is remembered between the two rounds of the mutating phase. The second round follows when a policy or webhook
//! has changed the object; in it only those are asked that were asked before a change and want to be asked again.

use std::collections::BTreeSet;

use serde_json::Value;

/// Which round it is, and what is remembered of the first.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// Whether this is the second round.
    pub(super) is_second: bool,
    /// Whether a second round is needed.
    pub(super) is_needed: bool,
    pub(super) policies: Asked,
    pub(super) webhooks: Asked,
}

/// Who was asked by one plugin, by what tells it from all others of its kind.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Asked so far, and to be asked again if the object changes after.
    before: BTreeSet<String>,
    /// To be asked in the second round.
    again: BTreeSet<String>,
    /// The object as the last one asked left it; only where somebody may be asked again.
    left: Value,
}

impl Asked {
    /// A round begins: if other plugins have changed the object since, whoever was asked before is asked again.
    pub(super) fn begin(&mut self, is_second: bool, object: &Value) {
        if is_second && !self.before.is_empty() && self.left != *object {
            self.changed();
        }
    }

    /// Something has changed: whoever was asked before is asked again.
    pub(super) fn changed(&mut self) {
        self.again.append(&mut self.before);
    }

    /// Whether this one is asked in the second round.
    pub(super) fn is_again(&self, who: &str) -> bool {
        self.again.contains(who)
    }

    /// This one was asked, and wants to be asked again when something changes.
    pub(super) fn note(&mut self, who: String) {
        self.before.insert(who);
    }

    /// A round ends.
    pub(super) fn end(&mut self, object: &Value) {
        if !self.before.is_empty() {
            self.left = object.clone();
        }
    }
}
