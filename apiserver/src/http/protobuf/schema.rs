//! Which kind is which message, and which message has which fields: `messages.txt`, parsed at first use.
//!
//! The first part of the file has one line per kind, `GROUP/VERSION KIND = MESSAGE`. The second has one line per
//! message, `MESSAGE: NUMBER NAME TYPE, …`. `[]` before a type is a list, `{}` a map with text keys; `*` means that
//! a zero value was set on purpose and is kept (an optional field, or one that JSON always shows); the name `.` is
//! a message whose fields stand in the object around it; the name `?` is one of the forms that the JSON value of the
//! whole message may take (a schema, or a list of schemas). The numbers are those of the `protobuf` tags in
//! `k8s.io/api`, `k8s.io/apimachinery`, `k8s.io/apiextensions-apiserver` and `k8s.io/kube-aggregator` v0.36.2.

use std::collections::HashMap;
use std::sync::OnceLock;

const TEXT: &str = include_str!("messages.txt");

/// The type of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    String,
    Int,
    Bool,
    Float,
    Bytes,
    Quantity,
    IntOrString,
    /// A message that only wraps a list of texts.
    Strings,
    Time,
    MicroTime,
    /// A message that only wraps JSON.
    Raw,
    /// Another message, by its place in the table.
    Message(usize),
}

/// How often a field's value stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    Once,
    List,
    Map,
}

/// One field of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u64,
    /// Its JSON name; see [`Field::is_inline`].
    pub(super) name: &'static str,
    pub(super) kind: Type,
    pub(super) repeat: Repeat,
    /// Whether a zero value means something and is kept.
    pub(super) keep_zero: bool,
}

impl Field {
    /// Whether the field's fields stand in the object around it.
    pub(super) fn is_inline(&self) -> bool {
        self.name == "."
    }

    /// Whether the field is one form of the whole message's JSON value.
    pub(super) fn is_form(&self) -> bool {
        self.name == "?"
    }
}

/// One message: its fields by number, and where the fields of its JSON object belong.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) fields: Vec<Field>,
    /// Messages inside this one whose fields stand in this one's JSON object: the number of each, and the place of
    /// the one around it when that is not this message itself. Outer ones stand before inner ones.
    pub(super) inlined: Vec<Inlined>,
    /// By JSON name, sorted.
    routes: Vec<(&'static str, Route)>,
}

/// A message inside another one that JSON does not know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inlined {
    pub(super) number: u64,
    pub(super) around: Option<usize>,
}

/// Where a field of a JSON object belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    /// The place in [`Message::inlined`]; `None`: the message itself.
    pub(super) inlined: Option<usize>,
    message: usize,
    field: usize,
}

impl Message {
    /// The field of that number.
    pub(super) fn field(&self, number: u64) -> Option<&Field> {
        self.fields.binary_search_by_key(&number, |field| field.number).ok().and_then(|index| self.fields.get(index))
    }

    /// Where the field of that JSON name belongs.
    pub(super) fn route(&self, name: &str) -> Option<Route> {
        let found = self.routes.binary_search_by(|(own, _)| (*own).cmp(name)).ok()?;
        self.routes.get(found).map(|(_, route)| *route)
    }

    /// Whether its JSON value takes several forms.
    pub(super) fn has_forms(&self) -> bool {
        self.fields.first().is_some_and(Field::is_form)
    }
}

/// The whole table.
#[derive(Debug)]
pub(super) struct Schema {
    /// By kind and then `apiVersion`.
    kinds: HashMap<&'static str, Vec<(&'static str, usize)>>,
    messages: Vec<Message>,
    delete_options: Option<usize>,
    list_meta: Option<usize>,
}

static NO_FIELDS: Message = Message { fields: Vec::new(), inlined: Vec::new(), routes: Vec::new() };

impl Schema {
    /// The table of this build.
    pub(super) fn get() -> &'static Self {
        static SCHEMA: OnceLock<Schema> = OnceLock::new();
        SCHEMA.get_or_init(|| Self::parse(TEXT))
    }

    /// The message of a kind. `DeleteOptions` belongs to every group and version.
    pub(super) fn kind(&self, api_version: &str, kind: &str) -> Option<&Message> {
        let index = if kind == "DeleteOptions" { self.delete_options } else { self.index_of(api_version, kind) };
        index.map(|index| self.message(index))
    }

    fn index_of(&self, api_version: &str, kind: &str) -> Option<usize> {
        let versions = self.kinds.get(kind)?;
        versions.iter().find(|(version, _)| *version == api_version).map(|(_, index)| *index)
    }

    /// The metadata of every list.
    pub(super) fn list_meta(&self) -> &Message {
        self.list_meta.map_or(&NO_FIELDS, |index| self.message(index))
    }

    /// The message at that place.
    pub(super) fn message(&self, index: usize) -> &Message {
        self.messages.get(index).unwrap_or(&NO_FIELDS)
    }

    /// The field that a route leads to.
    pub(super) fn field(&self, route: Route) -> Option<&Field> {
        self.message(route.message).fields.get(route.field)
    }

    fn parse(text: &'static str) -> Self {
        let (kinds, messages) = text.split_once("\n\n").unwrap_or((text, ""));
        let lines: Vec<(&str, &str)> = messages
            .lines()
            .filter_map(|line| line.split_once(": ").or(line.strip_suffix(':').map(|name| (name, ""))))
            .collect();
        let places: HashMap<&str, usize> = lines.iter().enumerate().map(|(index, (name, _))| (*name, index)).collect();
        let mut known: HashMap<&str, Vec<(&str, usize)>> = HashMap::new();
        for (api_version, kind, index) in kinds.lines().filter_map(|line| parse_kind(line, &places)) {
            known.entry(kind).or_default().push((api_version, index));
        }
        let fields: Vec<Vec<Field>> = lines.iter().map(|(_, fields)| parse_fields(fields, &places)).collect();
        let paths: Vec<_> = (0..fields.len()).map(|index| paths(&fields, index)).collect();
        let messages = fields.into_iter().zip(paths);
        Self {
            kinds: known,
            messages: messages.map(|(fields, (inlined, routes))| Message { fields, inlined, routes }).collect(),
            delete_options: places.get("meta.v1.DeleteOptions").copied(),
            list_meta: places.get("meta.v1.ListMeta").copied(),
        }
    }
}

/// Where each field of a message's JSON object belongs, and the messages that stand in between.
fn paths(messages: &[Vec<Field>], index: usize) -> (Vec<Inlined>, Vec<(&'static str, Route)>) {
    let (mut inlined, mut routes) = (Vec::new(), Vec::new());
    // What is still to be looked at: messages in this one, by their place among `inlined`.
    let mut open = vec![(index, None)];
    while let Some((message, around)) = open.pop() {
        for (place, field) in messages.get(message).into_iter().flatten().enumerate() {
            match field.kind {
                Type::Message(inner) if field.is_inline() => {
                    open.push((inner, Some(inlined.len())));
                    inlined.push(Inlined { number: field.number, around });
                }
                _ => routes.push((field.name, Route { inlined: around, message, field: place })),
            }
        }
    }
    routes.sort_by_key(|(name, _)| *name);
    (inlined, routes)
}

fn parse_kind(line: &'static str, places: &HashMap<&str, usize>) -> Option<(&'static str, &'static str, usize)> {
    let (kind, message) = line.split_once(" = ")?;
    let (api_version, kind) = kind.split_once(' ')?;
    Some((api_version, kind, *places.get(message)?))
}

fn parse_fields(text: &'static str, places: &HashMap<&str, usize>) -> Vec<Field> {
    text.split(", ").filter_map(|field| parse_field(field, places)).collect()
}

fn parse_field(text: &'static str, places: &HashMap<&str, usize>) -> Option<Field> {
    let mut words = text.split(' ');
    let (number, name, kind) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
    let (keep_zero, kind) = kind.strip_prefix('*').map_or((false, kind), |kind| (true, kind));
    let (repeat, kind) = match (kind.strip_prefix("[]"), kind.strip_prefix("{}")) {
        (Some(kind), _) => (Repeat::List, kind),
        (_, Some(kind)) => (Repeat::Map, kind),
        _ => (Repeat::Once, kind),
    };
    let kind = match kind {
        "string" => Type::String,
        "int" => Type::Int,
        "bool" => Type::Bool,
        "float" => Type::Float,
        "bytes" => Type::Bytes,
        "quantity" => Type::Quantity,
        "intorstring" => Type::IntOrString,
        "strings" => Type::Strings,
        "time" => Type::Time,
        "microtime" => Type::MicroTime,
        "raw" => Type::Raw,
        message => Type::Message(*places.get(message)?),
    };
    Some(Field { number, name, kind, repeat, keep_zero })
}

#[cfg(test)]
mod tests {
    use reeve_kinds::shape::{Shape, StructShape};

    use super::*;

    type Seen = std::collections::HashSet<&'static str>;

    #[test]
    fn every_line_of_the_table_is_understood() {
        let schema = Schema::get();
        let (kinds, messages) = TEXT.split_once("\n\n").unwrap();
        assert_eq!(schema.kinds.values().map(Vec::len).sum::<usize>(), kinds.lines().count());
        assert_eq!(schema.messages.len(), messages.lines().count());
        let fields: usize = schema.messages.iter().map(|message| message.fields.len()).sum();
        let written = messages.lines().filter_map(|line| line.split_once(": ")).map(|(_, all)| all.split(", ").count());
        assert_eq!(fields, written.sum::<usize>());
    }

    #[test]
    fn fields_are_ordered_by_number_so_that_they_can_be_searched() {
        for message in &Schema::get().messages {
            assert!(message.fields.is_sorted_by_key(|field| field.number), "{message:?}");
        }
    }

    /// What the kinds know and the table does not, and the other way round, by path.
    fn compare(
        schema: &Schema,
        message: &Message,
        shape: &'static StructShape,
        path: &str,
        seen: &mut Seen,
        out: &mut Vec<String>,
    ) {
        if !seen.insert(shape.name) {
            return;
        }
        let mut fields = Vec::new();
        flatten(schema, message, &mut fields);
        for (name, field) in &shape.fields {
            let Some(own) = fields.iter().find(|own| own.name == *name) else {
                if !path.is_empty() || (*name != "apiVersion" && *name != "kind") {
                    out.push(format!("{path}.{name} is not in the table"));
                }
                continue;
            };
            let inner = match &field.shape {
                Shape::List(list) => &list.items,
                Shape::Map(values) => values,
                other => other,
            };
            if let (Shape::Struct(inner), Type::Message(index)) = (inner, own.kind) {
                compare(schema, schema.message(index), inner, &format!("{path}.{name}"), seen, out);
            }
        }
        let unknown = fields.iter().filter(|own| shape.field(own.name).is_none());
        out.extend(unknown.map(|own| format!("{path}.{} is not in the kind", own.name)));
    }

    fn flatten<'s>(schema: &'s Schema, message: &'s Message, out: &mut Vec<&'s Field>) {
        for field in &message.fields {
            match field.kind {
                Type::Message(index) if field.is_inline() => flatten(schema, schema.message(index), out),
                _ => out.push(field),
            }
        }
    }

    #[test]
    fn every_field_of_every_kind_that_is_served_is_in_the_table() {
        let schema = Schema::get();
        let (mut seen, mut differences) = (Seen::new(), Vec::new());
        for kind in reeve_kinds::builtin() {
            let names = kind.names();
            let message = schema.kind(&names.api_version(), names.kind);
            let message = message.unwrap_or_else(|| panic!("{} has no message", names.kind));
            let Shape::Struct(shape) = kind.shape() else { panic!("{} is no object", names.kind) };
            compare(schema, message, shape, "", &mut seen, &mut differences);
        }
        assert_eq!(differences, Vec::<String>::new());
        assert!(seen.len() > 150, "{}", seen.len());
    }
}
