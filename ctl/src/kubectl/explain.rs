//! `explain`: what the fields of a type mean, from the server's OpenAPI document (version 3).
//!
//! [`Document`] walks schemas and follows references; the layout is that of kubectl's plain text.

use clap::Args;
use serde_json::{Map, Value};

use super::api::{Api, Url};
use super::args::program;
use super::error::CliError;
use super::get::write;
use super::mapper::{Mapper, Resource};

/// Columns of a description, indentation left out.
const WIDTH: usize = 76;
/// How many allowed values a line shows.
const ENUM_MAX: usize = 4;
/// Deepest nesting that is followed; deeper types refer to themselves.
const DEPTH_MAX: usize = 32;

/// `explain`
#[derive(Debug, Clone, Args)]
pub(crate) struct ExplainArgs {
    /// TYPE[.FIELD…]
    pub words: Vec<String>,
    /// Print the fields of fields too, by name only
    #[arg(long)]
    pub recursive: bool,
    /// Of this version, GROUP/VERSION
    #[arg(long, default_value = "")]
    pub api_version: String,
}

/// Runs the verb.
pub(crate) async fn run(args: ExplainArgs, api: &Api) -> Result<(), CliError> {
    let [typed] = args.words.as_slice() else {
        return Err(CliError::plain(match args.words.len() {
            0 => format!(
                "You must specify the type of resource to explain. Use \"{} api-resources\" for a complete list of supported resources.",
                program()
            ),
            _ => "We accept only this format: explain RESOURCE".to_owned(),
        }));
    };
    let mapper = Mapper::discover(api).await?;
    let (resource, path) = resource_and_path(&mapper, typed)?;
    let resource = of_version(&mapper, resource, &args.api_version)?;
    let document = Document::fetch(api, &resource).await?;
    let root = document.of_kind(&resource).ok_or_else(|| not_in_schema(&resource))?;
    write(&heading(&resource))?;
    write(&document.explain(root, &path, args.recursive)?)
}

/// The type may have dots of its own: `deployments.apps.spec`. The longest name that is one wins.
fn resource_and_path<'t>(mapper: &Mapper, typed: &'t str) -> Result<(Resource, Vec<&'t str>), CliError> {
    let parts: Vec<&str> = typed.split('.').filter(|part| !part.is_empty()).collect();
    for len in (2..=parts.len()).rev() {
        if let Ok(found) = mapper.find(&parts[..len].join(".")) {
            return Ok((found.clone(), parts[len..].to_vec()));
        }
    }
    let first = parts.first().copied().unwrap_or_default();
    match mapper.find(first) {
        Ok(found) => Ok((found.clone(), parts.get(1..).unwrap_or_default().to_vec())),
        Err(_) => Err(CliError::Unreachable(format!("the server doesn't have a resource type {first:?}"))),
    }
}

fn of_version(mapper: &Mapper, found: Resource, api_version: &str) -> Result<Resource, CliError> {
    if api_version.is_empty() || found.api_version() == api_version {
        return Ok(found);
    }
    let other = mapper.all().iter().find(|own| own.plural == found.plural && own.api_version() == api_version);
    other.cloned().ok_or_else(|| {
        CliError::plain(format!("couldn't find resource for \"{api_version}, Resource={}\"", found.plural))
    })
}

fn not_in_schema(resource: &Resource) -> CliError {
    let (version, plural) = (resource.api_version(), &resource.plural);
    CliError::plain(format!("GVR ({version}, Resource={plural}) not found in OpenAPI schema"))
}

fn heading(resource: &Resource) -> String {
    let group = if resource.group.is_empty() { String::new() } else { format!("GROUP:      {}\n", resource.group) };
    format!("{group}KIND:       {}\nVERSION:    {}\n\n", resource.kind, resource.version)
}

/// An OpenAPI document's schemas.
struct Document {
    schemas: Map<String, Value>,
}

impl Document {
    async fn fetch(api: &Api, resource: &Resource) -> Result<Self, CliError> {
        let index = api.get(&Url::new("/openapi/v3")).await?;
        let root = if resource.group.is_empty() { "api" } else { "apis" };
        let paths = index.get("paths").and_then(|own| own.get(format!("{root}/{}", resource.api_version())));
        let url = paths.and_then(|own| own.get("serverRelativeURL")).and_then(Value::as_str);
        let mut document = api.get(&Url::new(url.ok_or_else(|| not_in_schema(resource))?)).await?;
        match document.pointer_mut("/components/schemas").map(Value::take) {
            Some(Value::Object(schemas)) => Ok(Self { schemas }),
            _ => Err(not_in_schema(resource)),
        }
    }

    fn of_kind(&self, resource: &Resource) -> Option<&Value> {
        let is = |own: &Value| {
            let text = |field: &str| own.get(field).and_then(Value::as_str).unwrap_or_default();
            text("group") == resource.group && text("version") == resource.version && text("kind") == resource.kind
        };
        self.schemas.values().find(|schema| {
            let kinds = schema.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
            kinds.is_some_and(|kinds| kinds.len() == 1 && kinds.iter().all(is))
        })
    }

    fn referred<'s>(&'s self, schema: &'s Value) -> Option<(&'s str, &'s Value)> {
        let name = schema.get("$ref").and_then(Value::as_str)?.rsplit('/').next()?;
        self.schemas.get(name).map(|found| (name.rsplit('.').next().unwrap_or(name), found))
    }

    /// A schema that stands for another: a reference, the only part of `allOf`.
    fn other<'s>(&'s self, schema: &'s Value) -> Option<&'s Value> {
        let all_of = schema.get("allOf").and_then(Value::as_array).and_then(|all| all.first());
        all_of.or_else(|| self.referred(schema).map(|(_, found)| found))
    }

    /// What a schema holds: items of a list, values of a map.
    fn inner<'s>(&'s self, schema: &'s Value) -> Option<&'s Value> {
        schema.get("items").or_else(|| schema.get("additionalProperties")).or_else(|| self.other(schema))
    }

    /// The fields below a schema, looking through lists, maps and references.
    fn fields<'s>(&'s self, schema: &'s Value) -> Option<(&'s Map<String, Value>, &'s Value)> {
        let mut schema = schema;
        for _ in 0..DEPTH_MAX {
            if let Some(fields) = schema.get("properties").and_then(Value::as_object) {
                return Some((fields, schema));
            }
            schema = self.inner(schema)?;
        }
        None
    }

    /// A field by its name.
    fn child<'s>(&'s self, schema: &'s Value, name: &str) -> Option<&'s Value> {
        self.fields(schema).and_then(|(fields, _)| fields.get(name))
    }

    fn type_of(&self, schema: &Value) -> String {
        if let Some(items) = schema.get("items") {
            return format!("[]{}", self.type_of(items));
        }
        if let Some(values) = schema.get("additionalProperties").filter(|own| own.is_object()) {
            return format!("map[string]{}", self.type_of(values));
        }
        if let Some(part) = schema.get("allOf").and_then(Value::as_array).and_then(|all| all.first()) {
            return self.type_of(part);
        }
        if let Some((name, found)) = self.referred(schema) {
            return match found.get("type").and_then(Value::as_str) {
                Some(own) if own != "object" => own.to_owned(),
                _ => name.to_owned(),
            };
        }
        schema.get("type").and_then(Value::as_str).unwrap_or("Object").to_owned()
    }

    fn enum_of<'s>(&'s self, schema: &'s Value) -> Vec<&'s str> {
        let own = schema.get("enum").or_else(|| self.other(schema).and_then(|other| other.get("enum")));
        own.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// A field's own description, then that of its type.
    fn descriptions(&self, schema: &Value) -> Vec<String> {
        let mut found = Vec::new();
        let mut next = Some(schema);
        for _ in 0..DEPTH_MAX {
            let Some(own) = next else { break };
            let text = own.get("description").and_then(Value::as_str).unwrap_or_default();
            if !text.is_empty() {
                found.push(text.to_owned());
            }
            next = self.inner(own);
        }
        found
    }

    fn explain(&self, root: &Value, path: &[&str], recursive: bool) -> Result<String, CliError> {
        let mut schema = root;
        for name in path {
            let missing = || CliError::plain(format!("field {name:?} does not exist"));
            schema = self.child(schema, name).ok_or_else(missing)?;
        }
        let mut text = String::new();
        if let Some(name) = path.last() {
            text = format!("FIELD: {name} <{}>\n", self.type_of(schema));
            let values = self.enum_of(schema);
            if !values.is_empty() {
                text.push_str("ENUM:\n");
            }
            values.iter().for_each(|value| text.push_str(&format!("    {value}\n")));
            text.push_str(if values.is_empty() { "\n\n" } else { "\n" });
        }
        text.push_str("DESCRIPTION:\n");
        let descriptions = self.descriptions(schema);
        let described = if descriptions.is_empty() { vec!["<empty>".to_owned()] } else { descriptions };
        described.iter().flat_map(|own| wrap(own)).for_each(|line| text.push_str(&format!("    {line}\n")));
        text.push_str("    \n");
        if self.fields(schema).is_some() {
            text.push_str("FIELDS:\n");
            self.list(schema, recursive, 1, &mut text);
        }
        text.push('\n');
        Ok(text)
    }

    fn list(&self, schema: &Value, recursive: bool, level: usize, text: &mut String) {
        let Some((fields, parent)) = self.fields(schema).filter(|_| level <= DEPTH_MAX) else { return };
        let indent = "  ".repeat(level);
        for (name, field) in fields {
            let mark = required_mark(is_required(parent, name));
            text.push_str(&format!("{indent}{name}\t<{}>{mark}\n", self.type_of(field)));
            let values = self.enum_of(field);
            if !values.is_empty() {
                let shown = values.iter().take(ENUM_MAX).map(|own| if own.is_empty() { "\"\"" } else { own });
                let shown = shown.collect::<Vec<_>>().join(", ");
                let more = if values.len() > ENUM_MAX { ", ...." } else { "" };
                text.push_str(&format!("{indent}enum: {shown}{more}\n"));
            }
            if recursive {
                self.list(field, true, level + 1, text);
            } else {
                let own = self.descriptions(field).into_iter().next().unwrap_or_else(|| "<no description>".to_owned());
                wrap(&own).iter().for_each(|line| text.push_str(&format!("    {line}\n")));
                text.push('\n');
            }
        }
    }
}

fn is_required(parent: &Value, name: &str) -> bool {
    let required = parent.get("required").and_then(Value::as_array);
    required.is_some_and(|names| names.iter().any(|own| own == name))
}

fn required_mark(required: bool) -> &'static str {
    if required { " -required-" } else { "" }
}

/// Breaks lines between words. Indented lines, empty lines and lists stay lines of their own.
fn wrap(text: &str) -> Vec<String> {
    let mut wrapped: Vec<String> = Vec::new();
    let mut line = String::new();
    for own in text.split('\n') {
        let bare = own.trim();
        let keep = own.starts_with([' ', '\t']) && !bare.is_empty();
        let starts = keep || bare.is_empty() || line.ends_with(':') || is_list_item(bare);
        if starts && !line.is_empty() {
            wrapped.push(std::mem::take(&mut line));
        }
        if keep {
            wrapped.push(own.to_owned());
            continue;
        }
        if bare.is_empty() {
            if !wrapped.is_empty() {
                wrapped.push(String::new());
            }
            continue;
        }
        // Two spaces stay two: an empty word lies between them.
        for word in bare.split(' ') {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
                wrapped.push(std::mem::take(&mut line).trim_end().to_owned());
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    if !line.is_empty() {
        wrapped.push(line);
    }
    wrapped
}

fn is_list_item(line: &str) -> bool {
    let digits = line.trim_start_matches(|c: char| c.is_ascii_digit());
    line.starts_with("* ") || line.starts_with("- ") || (digits.len() < line.len() && digits.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Document {
        let schemas = json!({
            "a.Pod": {"type": "object", "description": "A pod.", "required": ["spec"],
                "properties": {"spec": {"allOf": [{"$ref": "#/x/a.Spec"}], "description": "What."}}},
            "a.Spec": {"type": "object", "description": "Spec type.", "properties": {
                "ports": {"type": "array", "items": {"$ref": "#/x/a.Port"}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "at": {"$ref": "#/x/a.Time"}, "mode": {"type": "string", "enum": ["A", "B"]}}},
            "a.Port": {"type": "object", "properties": {"number": {"type": "integer"}}},
            "a.Time": {"type": "string"},
        });
        let Value::Object(schemas) = schemas else { unreachable!("an object") };
        Document { schemas }
    }

    #[test]
    fn types_are_named_as_kubectl_names_them() {
        let document = document();
        let types: Vec<String> = document.schemas["a.Spec"]["properties"]
            .as_object()
            .expect("fields")
            .values()
            .map(|own| document.type_of(own))
            .collect();
        assert_eq!(types, ["string", "map[string]string", "string", "[]Port"]);
    }

    #[test]
    fn a_field_is_explained_by_itself_and_its_type() {
        let document = document();
        let text = document.explain(&document.schemas["a.Pod"], &["spec"], true).expect("explained");
        let expected = "FIELD: spec <Spec>\n\n\nDESCRIPTION:\n    What.\n    Spec type.\n    \nFIELDS:\n  at\t<string>\n  labels\t<map[string]string>\n  mode\t<string>\n  enum: A, B\n  ports\t<[]Port>\n    number\t<integer>\n\n";
        assert_eq!(text, expected);
        let refused = document.explain(&document.schemas["a.Pod"], &["spec", "nope"], false).expect_err("refused");
        assert_eq!(refused.to_string(), "error: field \"nope\" does not exist");
    }

    #[test]
    fn lists_and_code_keep_their_lines() {
        let text = "One two:\n- a\n- b\n\nnext\n    code  x";
        assert_eq!(wrap(text), ["One two:", "- a", "- b", "", "next", "    code  x"]);
        assert!(wrap(&"word ".repeat(40)).iter().all(|line| line.len() <= WIDTH));
    }
}
