//! Which kind is which message, and which message has which fields: `messages.txt`, parsed at first use.
//!
//! The first part of the file has one line per kind, `GROUP/VERSION KIND = MESSAGE`. The second has one line per
//! message, `MESSAGE: NUMBER NAME TYPE, …`. `[]` before a type is a list, `{}` a map with text keys; `*` means that
//! a zero value was set on purpose and is kept (an optional field, or one that JSON always shows); the name `.` is
//! a message whose fields stand in the object around it. The numbers are those of the `protobuf` tags in
//! `k8s.io/api` v0.36.2.

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
    number: u64,
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
}

/// One message: its fields by number.
#[derive(Debug)]
pub(super) struct Message(Vec<Field>);

impl Message {
    /// The field of that number.
    pub(super) fn field(&self, number: u64) -> Option<&Field> {
        self.0.binary_search_by_key(&number, |field| field.number).ok().and_then(|index| self.0.get(index))
    }
}

/// The whole table.
#[derive(Debug)]
pub(super) struct Schema {
    kinds: HashMap<(&'static str, &'static str), usize>,
    messages: Vec<Message>,
    delete_options: Option<usize>,
}

static NO_FIELDS: Message = Message(Vec::new());

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
        self.kinds.iter().find(|((version, name), _)| *version == api_version && *name == kind).map(|(_, &index)| index)
    }

    /// The message at that place.
    pub(super) fn message(&self, index: usize) -> &Message {
        self.messages.get(index).unwrap_or(&NO_FIELDS)
    }

    fn parse(text: &'static str) -> Self {
        let (kinds, messages) = text.split_once("\n\n").unwrap_or((text, ""));
        let lines: Vec<(&str, &str)> = messages
            .lines()
            .filter_map(|line| line.split_once(": ").or(line.strip_suffix(':').map(|name| (name, ""))))
            .collect();
        let places: HashMap<&str, usize> = lines.iter().enumerate().map(|(index, (name, _))| (*name, index)).collect();
        let kinds = kinds.lines().filter_map(|line| parse_kind(line, &places)).collect();
        let delete_options = places.get("meta.v1.DeleteOptions").copied();
        let messages = lines.iter().map(|(_, fields)| Message(parse_fields(fields, &places))).collect();
        Self { kinds, messages, delete_options }
    }
}

fn parse_kind(line: &'static str, places: &HashMap<&str, usize>) -> Option<((&'static str, &'static str), usize)> {
    let (kind, message) = line.split_once(" = ")?;
    Some((kind.split_once(' ')?, *places.get(message)?))
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
        assert_eq!(schema.kinds.len(), kinds.lines().count());
        assert_eq!(schema.messages.len(), messages.lines().count());
        let fields: usize = schema.messages.iter().map(|message| message.0.len()).sum();
        let written = messages.lines().filter_map(|line| line.split_once(": ")).map(|(_, all)| all.split(", ").count());
        assert_eq!(fields, written.sum::<usize>());
    }

    #[test]
    fn fields_are_ordered_by_number_so_that_they_can_be_searched() {
        for message in &Schema::get().messages {
            assert!(message.0.is_sorted_by_key(|field| field.number), "{message:?}");
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
        for field in &message.0 {
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
