//! Keeps the kernel's table in step with what the Services need, element by element.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::Ipv4Addr;

use reeve_client::ObjectKey;
use tracing::warn;

use super::chooser::Chooser;
use super::layout::{self, Front, Map, Surroundings};
use super::plan::{Entries, Place, Target};
use crate::nft::{Data, Element, NftError, NftSocket, Op};

/// Places where packets without connections come in, and what may still answer them there.
pub(crate) type Datagrams = BTreeMap<Front, BTreeSet<Target>>;

/// The table of one cluster and what is in it.
pub(crate) struct Rules {
    socket: NftSocket,
    table: String,
    surroundings: Surroundings,
    /// In order: of two that name the same external address the first one has it.
    services: BTreeMap<ObjectKey, Entries>,
    installed: BTreeMap<Place, Data>,
    choosers: HashMap<Chooser, usize>,
    hairpin: HashMap<Ipv4Addr, usize>,
    lasting: HashMap<Ipv4Addr, usize>,
    redirected: Datagrams,
    /// What is in the table is not known, or not what should be: it is to be made anew, whole.
    broken: bool,
}

impl Rules {
    /// Changes nothing yet: a table that an earlier process left goes on working. The first [`Rules::sync`] puts a new
    /// one in its place, whole, so that no connection meets a table that is only half there.
    pub(crate) fn new(table: String, surroundings: Surroundings) -> Result<Self, NftError> {
        Ok(Self {
            socket: NftSocket::open()?,
            table,
            surroundings,
            services: BTreeMap::new(),
            installed: BTreeMap::new(),
            choosers: HashMap::new(),
            hairpin: HashMap::new(),
            lasting: HashMap::new(),
            redirected: BTreeMap::new(),
            broken: true,
        })
    }

    /// Takes over what some Services need now; `None` means the Service is gone. One transaction, whose size follows
    /// from what has changed: returned in bytes. After an error, called again, it tries to make the table anew.
    pub(crate) fn sync(&mut self, changes: Vec<(ObjectKey, Option<Entries>)>) -> Result<usize, NftError> {
        let mut update = Update::default();
        let mut contested: BTreeSet<Place> = BTreeSet::new();
        for (key, new) in changes {
            let old = match &new {
                Some(entries) => self.services.insert(key, entries.clone()),
                None => self.services.remove(&key),
            };
            let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
            self.count(&old, &new, &mut update);
            redirect(&mut self.redirected, &old.datagrams, &new.datagrams);
            contested.extend(old.contested.into_iter().chain(new.contested));
            update.touched.extend(old.elements.into_keys());
            update.touched.extend(new.elements.keys().cloned());
            update.wanted.extend(new.elements);
        }
        for place in contested {
            // Whoever has changed: the place belongs to the first of those that want it.
            let owner = self.services.values().find(|entries| entries.contested.contains(&place));
            match owner.and_then(|entries| entries.elements.get(&place)) {
                Some(data) => drop(update.wanted.insert(place.clone(), data.clone())),
                None => drop(update.wanted.remove(&place)),
            }
            update.touched.insert(place);
        }
        for place in update.touched.iter().filter(|(map, _)| *map == Map::Hairpin) {
            if place.1.first_chunk::<4>().is_some_and(|ip| self.hairpin.contains_key(&Ipv4Addr::from(*ip))) {
                update.wanted.insert(place.clone(), Data::None);
            }
        }
        self.apply(update)
    }

    /// The addresses that connections are begun to, other than for want of a better endpoint.
    pub(crate) fn lasting(&self) -> BTreeSet<Ipv4Addr> {
        self.lasting.keys().copied().collect()
    }

    /// Every Service's needs, for those who hold its ports.
    pub(crate) fn services(&self) -> impl Iterator<Item = (&ObjectKey, &Entries)> {
        self.services.iter()
    }

    /// Where datagrams are led elsewhere since this was last asked: the kernel still leads flows that it knows as
    /// before.
    pub(crate) fn take_redirected(&mut self) -> Datagrams {
        std::mem::take(&mut self.redirected)
    }

    #[cfg(test)]
    pub(super) fn socket(&self) -> &NftSocket {
        &self.socket
    }

    #[cfg(test)]
    pub(super) fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    /// Removes the table.
    pub(crate) fn remove(table: &str) -> Result<(), NftError> {
        NftSocket::open()?.apply(table, &[Op::AddTable, Op::DeleteTable]).map(drop)
    }

    fn count(&mut self, old: &Entries, new: &Entries, update: &mut Update) {
        let changed = old.endpoints.symmetric_difference(&new.endpoints);
        update.touched.extend(changed.map(|ip| (Map::Hairpin, layout::hairpin_key(*ip))));
        for chooser in old.choosers.symmetric_difference(&new.choosers) {
            update.choosers.entry(*chooser).or_insert(self.choosers.contains_key(chooser));
        }
        recount(&mut self.hairpin, &old.endpoints, &new.endpoints);
        recount(&mut self.lasting, &old.lasting, &new.lasting);
        recount(&mut self.choosers, &old.choosers, &new.choosers);
    }

    fn apply(&mut self, update: Update) -> Result<usize, NftError> {
        let Update { touched, wanted, choosers } = update;
        let (mut delete, mut add): (BTreeMap<Map, Vec<Element>>, BTreeMap<Map, Vec<Element>>) = Default::default();
        for place in &touched {
            let (is, should) = (self.installed.get(place), wanted.get(place));
            if is == should {
                continue;
            }
            let element = |data: &Data| Element { key: place.1.clone(), data: data.clone() };
            delete.entry(place.0).or_default().extend(is.map(element));
            add.entry(place.0).or_default().extend(should.map(element));
        }
        let (made, unused) = self.chooser_changes(choosers);
        let mut ops: Vec<Op> = made.iter().flat_map(Chooser::make).collect();
        ops.extend(delete.into_iter().map(|(map, elements)| Op::DeleteElements(map.name(), elements)));
        ops.extend(add.into_iter().map(|(map, elements)| Op::AddElements(map.name(), elements)));
        ops.extend(unused.iter().map(|chooser| Op::DeleteChain(chooser.name())));
        touched.iter().for_each(|place| drop(self.installed.remove(place)));
        self.installed.extend(wanted);
        if self.broken {
            return self.rebuild();
        }
        self.socket.apply(&self.table, &ops).or_else(|err| {
            warn!(%err, table = self.table, "the table is not what it should be: making it anew");
            self.rebuild()
        })
    }

    /// Which of the touched choosers must be made, and which removed: at the start of the update each was either in
    /// the table or not, and its count says where it belongs now.
    fn chooser_changes(&self, touched: BTreeMap<Chooser, bool>) -> (Vec<Chooser>, Vec<Chooser>) {
        let (mut made, mut unused) = (Vec::new(), Vec::new());
        for (chooser, was_used) in touched {
            match (was_used, self.choosers.contains_key(&chooser)) {
                (false, true) => made.push(chooser),
                (true, false) => unused.push(chooser),
                _ => {}
            }
        }
        (made, unused)
    }

    fn rebuild(&mut self) -> Result<usize, NftError> {
        // Added first so that there is a table to remove: the kernel knows no "remove if it exists".
        let mut ops = vec![Op::AddTable, Op::DeleteTable, Op::AddTable];
        ops.extend(layout::base(&self.surroundings));
        ops.extend(self.choosers.keys().flat_map(Chooser::make));
        for map in Map::ALL {
            let own = self.installed.iter().filter(|((own, _), _)| *own == map);
            let list = own.map(|((_, key), data)| Element { key: key.clone(), data: data.clone() }).collect();
            ops.push(Op::AddElements(map.name(), list));
        }
        let outcome = self.socket.apply(&self.table, &ops);
        self.broken = outcome.is_err();
        outcome
    }
}

/// What one transaction is about.
#[derive(Default)]
struct Update {
    /// Places that may have to change.
    touched: BTreeSet<Place>,
    /// What belongs there.
    wanted: BTreeMap<Place, Data>,
    /// Choosers whose use changed, and whether they were used before.
    choosers: BTreeMap<Chooser, bool>,
}

/// How many Services want each thing.
fn recount<T: Copy + Ord + Hash>(counts: &mut HashMap<T, usize>, old: &BTreeSet<T>, new: &BTreeSet<T>) {
    for item in new.difference(old) {
        *counts.entry(*item).or_default() += 1;
    }
    for item in old.difference(new) {
        if let Some(count) = counts.get_mut(item) {
            *count -= 1;
            if *count == 0 {
                counts.remove(item);
            }
        }
    }
}

/// Notes the places whose datagrams are answered by others than before. More endpoints take nothing from the old ones.
fn redirect(redirected: &mut Datagrams, old: &Datagrams, new: &Datagrams) {
    let none = BTreeSet::new();
    for front in old.keys().chain(new.keys()) {
        let (was, is) = (old.get(front).unwrap_or(&none), new.get(front).unwrap_or(&none));
        let first = was.is_empty() && !is.is_empty();
        if first || !was.is_subset(is) || redirected.contains_key(front) {
            redirected.insert(*front, is.clone());
        }
    }
}
