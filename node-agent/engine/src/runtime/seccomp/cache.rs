//! Filters that were compiled before: nearly all containers of a node have the same one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::supervisor::plan::BpfProgram;

/// Filters that are kept. Every set of capabilities has its own, and every profile of the node; when there are more,
/// all are forgotten, for a node has but a few.
const KEPT_MAX: usize = 64;

/// What a filter is compiled from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// The default profile for these capabilities.
    Default(u64),
    /// The text of a profile.
    Profile(Vec<u8>),
}

/// Filters by what they were compiled from. Shared by all containers of an engine.
#[derive(Debug, Default)]
pub struct Filters(Mutex<HashMap<Source, BpfProgram>>);

impl Filters {
    /// The filter of that source; compiled if it was not yet.
    pub(crate) fn get<E>(
        &self,
        source: Source,
        compile: impl FnOnce(&Source) -> Result<BpfProgram, E>,
    ) -> Result<BpfProgram, E> {
        if let Some(known) = self.lock(|filters| filters.get(&source).cloned()) {
            return Ok(known);
        }
        // Outside the lock: two that ask at the same moment both compile, which does no harm.
        let program = compile(&source)?;
        self.lock(|filters| {
            if filters.len() >= KEPT_MAX {
                filters.clear();
            }
            filters.insert(source, program.clone());
        });
        Ok(program)
    }

    fn lock<T>(&self, f: impl FnOnce(&mut HashMap<Source, BpfProgram>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn a_filter_is_compiled_once_and_not_too_many_are_kept() {
        let (filters, compiled) = (Filters::default(), Cell::new(0));
        let get = |source: Source| {
            let compile = |source: &Source| {
                compiled.set(compiled.get() + 1);
                let Source::Default(bits) = source else { return Ok(BpfProgram::default()) };
                Ok::<_, Infallible>(BpfProgram(bits.to_ne_bytes().to_vec()))
            };
            filters.get(source, compile).unwrap()
        };
        for bits in [1, 2, 1, 2] {
            assert_eq!(get(Source::Default(bits)).0, bits.to_ne_bytes());
        }
        get(Source::Profile(b"{}".to_vec()));
        get(Source::Profile(b"{}".to_vec()));
        assert_eq!(compiled.get(), 3);
        (0..1000).for_each(|bits| drop(get(Source::Default(bits))));
        assert!(filters.lock(|filters| filters.len()) <= KEPT_MAX);
    }
}
