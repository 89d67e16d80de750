//! `metadata.managedFields`: its entries, and by what an entry is known.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::set::Set;

/// How a manager writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By anything else.
    Update,
}

impl Operation {
    /// As it stands in an entry.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// By what an entry is known: a manager has one per way of writing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManagerId {
    /// The manager's name.
    pub manager: String,
    /// How it writes.
    pub operation: Operation,
    /// The version it writes; empty for [`Operation::Apply`], where the last one counts.
    pub api_version: String,
    /// The subresource it writes; empty for the object itself.
    pub subresource: String,
}

impl ManagerId {
    /// As it stands in messages: `"kubectl" with subresource "scale" using apps/v1`.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// One entry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Whose it is.
    pub id: ManagerId,
    /// The version its fields are of.
    pub version: String,
    /// When it last changed, as it is written.
    pub time: Option<String>,
    pub(super) fields: Fields,
}

/// The fields of an entry; read only when somebody asks for them.
#[derive(Debug, Clone)]
pub(super) enum Fields {
    Text(Value),
    Set(Set),
}

impl Entry {
    /// An entry that is made anew.
    #[must_use]
    pub fn new(id: ManagerId, version: &str, set: Set, time: Option<String>) -> Self {
        Self { id, version: version.to_owned(), time, fields: Fields::Set(set) }
    }

    /// Its fields. They were checked when they came in.
    #[must_use]
    pub fn set(&self) -> Set {
        match &self.fields {
            Fields::Set(set) => set.clone(),
            Fields::Text(text) => Set::parse(text).unwrap_or_default(),
        }
    }

    /// Makes these its fields.
    pub fn put(&mut self, set: Set) {
        self.fields = Fields::Set(set);
    }

    /// Whether some of these fields are its own. Reads nothing that is not asked for.
    pub(super) fn overlaps(&self, set: &Set) -> bool {
        match &self.fields {
            Fields::Set(own) => !own.intersection(set).is_empty(),
            Fields::Text(text) => overlaps(text, set),
        }
    }

    /// Whether all of these fields are its own.
    pub(super) fn covers(&self, set: &Set) -> bool {
        match &self.fields {
            Fields::Set(own) => set.difference(own).is_empty(),
            Fields::Text(text) => covers(text, set),
        }
    }

    fn seconds(&self) -> i64 {
        let time = self.time.as_deref().and_then(|time| time.parse::<Timestamp>().ok());
        time.map_or(0, Timestamp::as_second)
    }
}

fn is_member(below: &Value) -> bool {
    below.as_object().is_none_or(|map| map.is_empty() || map.contains_key("."))
}

fn overlaps(text: &Value, set: &Set) -> bool {
    set.members.iter().any(|member| text.get(member.text()).is_some_and(is_member))
        || set
            .children
            .iter()
            .any(|(element, below)| text.get(element.text()).is_some_and(|text| overlaps(text, below)))
}

fn covers(text: &Value, set: &Set) -> bool {
    set.members.iter().all(|member| text.get(member.text()).is_some_and(is_member))
        && set.children.iter().all(|(element, below)| {
            below.is_empty() || text.get(element.text()).is_some_and(|text| covers(text, below))
        })
}

/// All entries of an object, one per [`ManagerId`].
#[derive(Debug, Clone, Default)]
pub struct Managed {
    /// In no order.
    pub entries: Vec<Entry>,
}

impl Managed {
    /// Reads entries that the server itself has written: what their fields hold is not looked at.
    ///
    /// # Errors
    /// As [`Managed::decode`].
    pub fn stored(entries: &Value) -> Result<Self, String> {
        Self::read(entries, false)
    }

    /// Reads `metadata.managedFields`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(entries: &Value) -> Result<Self, String> {
        Self::read(entries, true)
    }

    fn read(entries: &Value, checked: bool) -> Result<Self, String> {
        let mut managed = Self::default();
        for (at, entry) in entries.as_array().into_iter().flatten().enumerate() {
            let entry = read_entry(at, entry, checked)?;
            managed.entries.retain(|own| own.id != entry.id);
            managed.entries.push(entry);
        }
        Ok(managed)
    }

    /// The entry of that manager.
    #[must_use]
    pub fn get(&self, id: &ManagerId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == *id)
    }

    pub(super) fn get_mut(&mut self, id: &ManagerId) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.id == *id)
    }

    /// Puts an entry in the place of the manager's former one.
    pub fn put(&mut self, entry: Entry) {
        match self.get_mut(&entry.id) {
            Some(own) => *own = entry,
            None => self.entries.push(entry),
        }
    }

    /// Takes away what manages nothing.
    pub(super) fn drop_empty(&mut self) {
        self.entries.retain(|entry| match &entry.fields {
            Fields::Set(set) => !set.is_empty(),
            Fields::Text(text) => text.as_object().is_some_and(|fields| !fields.is_empty()),
        });
    }

    /// As `metadata.managedFields`, in Kubernetes' order: by operation, time, name. Null when there is none.
    #[must_use]
    pub fn encode(mut self) -> Value {
        if self.entries.is_empty() {
            return Value::Null;
        }
        self.entries.sort_by(|a, b| {
            let order = a.id.operation.cmp(&b.id.operation).then_with(|| a.seconds().cmp(&b.seconds()));
            let order = order.then_with(|| a.id.manager.cmp(&b.id.manager)).then_with(|| a.version.cmp(&b.version));
            order.then_with(|| a.id.subresource.cmp(&b.id.subresource))
        });
        self.entries.into_iter().map(write_entry).collect()
    }

    /// The entries of updates, the oldest first.
    pub(super) fn updaters(&self) -> Vec<ManagerId> {
        let mut found: Vec<_> = self.entries.iter().filter(|entry| entry.id.operation == Operation::Update).collect();
        found.sort_by(|a, b| a.seconds().cmp(&b.seconds()).then_with(|| a.id.cmp(&b.id)));
        found.into_iter().map(|entry| entry.id.clone()).collect()
    }
}

fn read_entry(at: usize, entry: &Value, checked: bool) -> Result<Entry, String> {
    let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let operation = match text("operation").as_str() {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return Err("operation must be `Apply` or `Update`".to_owned()),
    };
    let version = text("apiVersion");
    if version.is_empty() {
        return Err("apiVersion must not be empty".to_owned());
    }
    match text("fieldsType").as_str() {
        "FieldsV1" => {}
        "" => return Err(format!("missing fieldsType in managed fields entry {at}")),
        other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {at}")),
    }
    let fields = entry.get("fieldsV1").filter(|fields| !fields.is_null());
    let fields = fields.cloned().unwrap_or_else(|| Value::Object(Map::new()));
    let fields = if checked {
        Fields::Set(Set::parse(&fields).map_err(|error| format!("error decoding versioned set: {error}"))?)
    } else {
        Fields::Text(fields)
    };
    let api_version = if operation == Operation::Apply { String::new() } else { version.clone() };
    let id = ManagerId { manager: text("manager"), operation, api_version, subresource: text("subresource") };
    let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
    Ok(Entry { id, version, time, fields })
}

fn write_entry(entry: Entry) -> Value {
    let mut out = Map::new();
    let mut put = |name: &str, text: String| {
        if !text.is_empty() {
            out.insert(name.to_owned(), Value::String(text));
        }
    };
    put("manager", entry.id.manager);
    put("operation", entry.id.operation.name().to_owned());
    put("apiVersion", entry.version);
    put("time", entry.time.unwrap_or_default());
    put("fieldsType", "FieldsV1".to_owned());
    put("subresource", entry.id.subresource);
    let fields = match entry.fields {
        Fields::Text(text) => text,
        Fields::Set(set) => set.value(),
    };
    out.insert("fieldsV1".to_owned(), fields);
    Value::Object(out)
}

/// Whether the client asks to forget all managers: an empty list, or one entry with nothing in it.
#[must_use]
pub fn is_reset(entries: &Value) -> bool {
    match entries.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}
