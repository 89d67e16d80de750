//! Names that come from outside and are compared everywhere: each is kept once, for the life of the process.
//!
//! Built-in kinds have their names in the program; custom resources bring theirs in a CustomResourceDefinition.
//! Interned, both are the same `&'static str`. Only names of definitions that were accepted come here (at most 253
//! bytes each), never those of objects: what is kept is bounded by what an administrator has ever defined.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

static TEXTS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
static LISTS: Mutex<BTreeSet<&'static [&'static str]>> = Mutex::new(BTreeSet::new());

/// The text, for the life of the process; the same text gives the same memory.
#[must_use]
pub fn intern(text: &str) -> &'static str {
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = texts.get(text) {
        return known;
    }
    let kept: &'static str = Box::leak(text.into());
    texts.insert(kept);
    kept
}

/// As [`intern`], for a list: short names, categories.
#[must_use]
pub fn intern_all<'t>(texts: impl IntoIterator<Item = &'t str>) -> &'static [&'static str] {
    let texts: Vec<&'static str> = texts.into_iter().map(intern).collect();
    let mut lists = LISTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = lists.get(texts.as_slice()) {
        return known;
    }
    let kept: &'static [&'static str] = texts.leak();
    lists.insert(kept);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_interned_twice_is_kept_once() {
        let (one, other) = (intern("widgets"), intern(&String::from("widgets")));
        assert!(std::ptr::eq(one, other));
        assert!(std::ptr::eq(intern_all(["a", "b"]), intern_all(["a", "b"])));
        assert_eq!(intern_all(["a", "b"]), ["a", "b"]);
    }
}
