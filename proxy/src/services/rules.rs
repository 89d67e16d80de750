//! Keeps the kernel's table in step with what the Services need, element by element.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use reeve_client::ObjectKey;
use tracing::warn;

use super::layout::{self, Map, Ranges};
use super::plan::{Entries, Place};
use crate::nft::{Data, Element, NftError, NftSocket, Op};

/// The table of one cluster and what is in it.
pub(crate) struct Rules {
    socket: NftSocket,
    table: String,
    ranges: Ranges,
    services: HashMap<ObjectKey, Entries>,
    installed: BTreeMap<Place, Data>,
    hairpin: HashMap<Ipv4Addr, usize>,
    lasting: HashMap<Ipv4Addr, usize>,
}

impl Rules {
    /// Makes the table anew, empty. One transaction: an older table of that name works until this one does.
    pub(crate) fn new(table: String, ranges: Ranges) -> Result<Self, NftError> {
        let socket = NftSocket::open()?;
        let mut rules = Self {
            socket,
            table,
            ranges,
            services: HashMap::new(),
            installed: BTreeMap::new(),
            hairpin: HashMap::new(),
            lasting: HashMap::new(),
        };
        rules.rebuild()?;
        Ok(rules)
    }

    /// Takes over what some Services need now; `None` means the Service is gone. One transaction.
    pub(crate) fn sync(&mut self, changes: Vec<(ObjectKey, Option<Entries>)>) -> Result<(), NftError> {
        let mut touched: BTreeSet<Place> = BTreeSet::new();
        let mut wanted: BTreeMap<Place, Data> = BTreeMap::new();
        for (key, new) in changes {
            let old = match &new {
                Some(entries) => self.services.insert(key, entries.clone()),
                None => self.services.remove(&key),
            };
            let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
            self.count(&old, &new, &mut touched);
            touched.extend(old.elements.into_keys());
            touched.extend(new.elements.keys().cloned());
            wanted.extend(new.elements);
        }
        for place in touched.iter().filter(|(map, _)| *map == Map::Hairpin) {
            if place.1.first_chunk::<4>().is_some_and(|ip| self.hairpin.contains_key(&Ipv4Addr::from(*ip))) {
                wanted.insert(place.clone(), Data::None);
            }
        }
        self.apply(&touched, wanted)
    }

    /// The addresses that connections are begun to, other than for want of a better endpoint.
    pub(crate) fn lasting(&self) -> BTreeSet<Ipv4Addr> {
        self.lasting.keys().copied().collect()
    }

    /// Every Service's needs, for those who hold its NodePorts.
    pub(crate) fn services(&self) -> impl Iterator<Item = (&ObjectKey, &Entries)> {
        self.services.iter()
    }

    /// Removes the table.
    pub(crate) fn remove(table: &str) -> Result<(), NftError> {
        NftSocket::open()?.apply(table, &[Op::AddTable, Op::DeleteTable])
    }

    fn count(&mut self, old: &Entries, new: &Entries, touched: &mut BTreeSet<Place>) {
        for ip in new.endpoints.difference(&old.endpoints) {
            *self.hairpin.entry(*ip).or_default() += 1;
            touched.insert((Map::Hairpin, layout::hairpin_key(*ip)));
        }
        for ip in old.endpoints.difference(&new.endpoints) {
            release(&mut self.hairpin, *ip);
            touched.insert((Map::Hairpin, layout::hairpin_key(*ip)));
        }
        for ip in new.lasting.difference(&old.lasting) {
            *self.lasting.entry(*ip).or_default() += 1;
        }
        for ip in old.lasting.difference(&new.lasting) {
            release(&mut self.lasting, *ip);
        }
    }

    fn apply(&mut self, touched: &BTreeSet<Place>, wanted: BTreeMap<Place, Data>) -> Result<(), NftError> {
        let (mut delete, mut add): (BTreeMap<Map, Vec<Element>>, BTreeMap<Map, Vec<Element>>) = Default::default();
        for place in touched {
            let (is, should) = (self.installed.get(place), wanted.get(place));
            if is == should {
                continue;
            }
            let element = |data: &Data| Element { key: place.1.clone(), data: data.clone() };
            delete.entry(place.0).or_default().extend(is.map(element));
            add.entry(place.0).or_default().extend(should.map(element));
        }
        let mut ops: Vec<Op> = Vec::new();
        ops.extend(delete.into_iter().map(|(map, elements)| Op::DeleteElements(map.name(), elements)));
        ops.extend(add.into_iter().map(|(map, elements)| Op::AddElements(map.name(), elements)));
        touched.iter().for_each(|place| drop(self.installed.remove(place)));
        self.installed.extend(wanted);
        if let Err(err) = self.socket.apply(&self.table, &ops) {
            warn!(%err, table = self.table, "the table is not what it should be: making it anew");
            self.rebuild()?;
        }
        Ok(())
    }

    fn rebuild(&mut self) -> Result<(), NftError> {
        // Added first so that there is a table to remove: the kernel knows no "remove if it exists".
        let mut ops = vec![Op::AddTable, Op::DeleteTable, Op::AddTable];
        ops.extend(layout::base(self.ranges));
        for map in Map::ALL {
            let own = self.installed.iter().filter(|((own, _), _)| *own == map);
            let list = own.map(|((_, key), data)| Element { key: key.clone(), data: data.clone() }).collect();
            ops.push(Op::AddElements(map.name(), list));
        }
        self.socket.apply(&self.table, &ops)
    }
}

fn release(counts: &mut HashMap<Ipv4Addr, usize>, ip: Ipv4Addr) {
    if let Some(count) = counts.get_mut(&ip) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&ip);
        }
    }
}
