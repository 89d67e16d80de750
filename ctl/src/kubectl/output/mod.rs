//! What `-o` asks for, and how objects are printed.

pub(crate) mod columns;
pub(crate) mod jsonpath;
pub(crate) mod table;
pub(crate) mod tabwriter;
pub(crate) mod yaml;

use serde_json::{Value, json};

use super::error::CliError;
use super::mapper::Resource;

/// A form of output.
#[derive(Debug, Clone)]
pub(crate) enum Output {
    /// The server's table; with its further columns if set.
    Table {
        /// `-o wide`
        wide: bool,
    },
    /// `-o name`
    Name,
    /// `-o json`
    Json,
    /// `-o yaml`
    Yaml,
    /// `-o jsonpath=…`
    JsonPath(jsonpath::Template),
    /// `-o jsonpath-as-json=…`
    JsonPathAsJson(jsonpath::Template),
    /// `-o custom-columns=…`
    Columns(columns::Columns),
}

impl Output {
    /// Reads the value of `-o`; empty means the table.
    pub(crate) fn parse(text: &str) -> Result<Self, CliError> {
        let (form, rest) = text.split_once('=').map_or((text, None), |(form, rest)| (form, Some(rest)));
        let template = |rest: Option<&str>| {
            let rest = rest
                .ok_or_else(|| CliError::plain(format!("template format specified but no template given: {text}")))?;
            jsonpath::Template::parse(rest)
                .map_err(|reason| CliError::plain(format!("error parsing jsonpath {rest}, {reason}")))
        };
        let file = |rest: Option<&str>| {
            let path = rest.unwrap_or_default();
            std::fs::read_to_string(path)
                .map_err(|err| CliError::plain(format!("cannot read template {path:?}: {err}")))
        };
        Ok(match form {
            "" => Self::Table { wide: false },
            "wide" => Self::Table { wide: true },
            "name" => Self::Name,
            "json" => Self::Json,
            "yaml" => Self::Yaml,
            "jsonpath" => Self::JsonPath(template(rest)?),
            "jsonpath-file" => Self::JsonPath(template(Some(file(rest)?.trim_end_matches('\n')))?),
            "jsonpath-as-json" => Self::JsonPathAsJson(template(rest)?),
            "custom-columns" => {
                Self::Columns(columns::Columns::parse(rest.unwrap_or_default()).map_err(CliError::Plain)?)
            }
            "custom-columns-file" => {
                Self::Columns(columns::Columns::parse_file(&file(rest)?).map_err(CliError::Plain)?)
            }
            _ => {
                return Err(CliError::plain(format!(
                    "unable to match a printer suitable for the output format {text:?}, allowed formats are: custom-columns,custom-columns-file,json,jsonpath,jsonpath-as-json,jsonpath-file,name,wide,yaml"
                )));
            }
        })
    }

    /// Whether the server is asked for a table rather than for objects.
    pub(crate) fn is_table(&self) -> bool {
        matches!(self, Self::Table { .. })
    }

    /// Prints one object or list in every form but the table. `resource` is what `-o name` calls it.
    pub(crate) fn print(&self, value: &Value, resource: Option<&Resource>) -> Result<String, CliError> {
        Ok(match self {
            Self::Table { .. } => String::new(),
            Self::Json => json_text(value),
            Self::Yaml => yaml::to_string(value),
            Self::JsonPath(template) => template.print(value).map_err(CliError::Plain)?,
            Self::JsonPathAsJson(template) => {
                json_text(&Value::Array(template.values(value).map_err(CliError::Plain)?))
            }
            Self::Columns(columns) => columns.print(&items(value)),
            Self::Name => items(value).iter().map(|item| format!("{}\n", name_of(item, resource))).collect(),
        })
    }
}

/// The items of a list; a single object is a list of itself.
pub(crate) fn items(value: &Value) -> Vec<Value> {
    match value.get("items").and_then(Value::as_array) {
        Some(items) => items.clone(),
        None => vec![value.clone()],
    }
}

/// `pod/web`, `deployment.apps/web`
pub(crate) fn name_of(object: &Value, resource: Option<&Resource>) -> String {
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    if let Some(resource) = resource {
        return resource.name_of(name);
    }
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    let version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    match version.split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

/// Objects of several kinds as the one list that kubectl prints.
pub(crate) fn list_of(items: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
}

/// JSON as kubectl prints it: four spaces, a final newline.
pub(crate) fn json_text(value: &Value) -> String {
    use serde::Serialize as _;
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    if value.serialize(&mut serializer).is_err() {
        return String::new();
    }
    let mut text = escaped(&String::from_utf8_lossy(&bytes));
    text.push('\n');
    text
}

/// JSON as Go writes it: what could end a script in a web page is escaped. Such characters stand in texts only.
pub(crate) fn escaped(json: &str) -> String {
    json.chars().fold(String::with_capacity(json.len()), |mut escaped, c| {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            other => escaped.push(other),
        }
        escaped
    })
}
