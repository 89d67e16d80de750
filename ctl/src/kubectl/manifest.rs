//! What `-f` names: files, folders and standard input, with one or more YAML or JSON documents each.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_json::Value;

use super::args::FileArgs;
use super::error::CliError;

/// Longest input; an object itself may have 3 MiB.
const INPUT_MAX: u64 = 256 << 20;
const EXTENSIONS: [&str; 3] = ["json", "yaml", "yml"];

/// One object that a user wrote.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    /// The object.
    pub object: Value,
    /// Where it came from, for error texts: a path or `STDIN`.
    pub source: String,
}

impl Manifest {
    fn text(&self, pointer: &str) -> &str {
        self.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// `apiVersion`
    pub(crate) fn api_version(&self) -> &str {
        self.text("/apiVersion")
    }

    /// `kind`
    pub(crate) fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// `metadata.name`
    pub(crate) fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// `metadata.namespace`
    pub(crate) fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }
}

/// Reads everything that the flags name, in kubectl's order. Lists are taken apart.
pub(crate) fn read(args: &FileArgs) -> Result<Vec<Manifest>, CliError> {
    let mut manifests = Vec::new();
    for name in &args.filename {
        if name == "-" {
            parse(&read_whole(name)?, "STDIN", &mut manifests)?;
        } else if name.starts_with("http://") || name.starts_with("https://") {
            return Err(CliError::plain(format!("{name}: addresses are not fetched; download it and name the file")));
        } else {
            for file in expand(Path::new(name), args.recursive)? {
                parse(&read_file(&file)?, &file.display().to_string(), &mut manifests)?;
            }
        }
    }
    Ok(manifests)
}

/// A whole file, or standard input for `-`, within limits.
pub(super) fn read_whole(name: &str) -> Result<Vec<u8>, CliError> {
    if name != "-" {
        return read_file(Path::new(name));
    }
    let mut text = Vec::new();
    let read = std::io::stdin().lock().take(INPUT_MAX).read_to_end(&mut text);
    read.map_err(|err| CliError::plain(format!("cannot read standard input: {err}")))?;
    Ok(text)
}

/// A whole file, within limits.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, CliError> {
    let failed = |err: std::io::Error| CliError::plain(format!("cannot read {}: {err}", path.display()));
    let mut text = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(INPUT_MAX).read_to_end(&mut text).map_err(failed)?;
    Ok(text)
}

/// The files a name stands for: itself, or the manifests of a folder, sorted by name.
fn expand(path: &Path, recursive: bool) -> Result<Vec<PathBuf>, CliError> {
    let missing = || CliError::plain(format!("the path {:?} does not exist", path.display().to_string()));
    let meta = std::fs::metadata(path).map_err(|_| missing())?;
    if !meta.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let entries = std::fs::read_dir(path).map_err(|err| CliError::plain(format!("{}: {err}", path.display())))?;
    let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    let mut files = Vec::new();
    for entry in entries {
        if entry.is_dir() {
            if recursive {
                files.extend(expand(&entry, true)?);
            }
        } else if entry.extension().is_some_and(|own| EXTENSIONS.iter().any(|extension| own == *extension)) {
            files.push(entry);
        }
    }
    Ok(files)
}

/// Takes a text apart into objects. Errors name the source, the line and the column.
pub(crate) fn parse(text: &[u8], source: &str, manifests: &mut Vec<Manifest>) -> Result<(), CliError> {
    let invalid = |reason: String| CliError::plain(format!("error parsing {source}: {reason}"));
    let text = std::str::from_utf8(text).map_err(|err| invalid(format!("not UTF-8: {err}")))?;
    if let Some(objects) = json_stream(text) {
        return objects.into_iter().try_for_each(|object| flatten(object, source, manifests));
    }
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = serde_yaml::Value::deserialize(document).map_err(|err| invalid(describe(&err)))?;
        if value.is_null() {
            continue;
        }
        let object: Value = to_json(value).map_err(&invalid)?;
        flatten(object, source, manifests)?;
    }
    Ok(())
}

/// JSON documents, one after the other. JSON is nearly YAML, but not where texts hold control characters. `None` when
/// it is not JSON: then YAML's parser says what is wrong.
fn json_stream(text: &str) -> Option<Vec<Value>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    serde_json::Deserializer::from_str(text).into_iter().collect::<Result<_, _>>().ok()
}

/// One YAML or JSON document that need not be an object with a kind: a patch.
pub(super) fn value(text: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(text).map_err(|err| format!("not UTF-8: {err}"))?;
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    to_json(serde_yaml::from_str(text).map_err(|err| describe(&err))?)
}

/// The parser's words carry `at line N column M`; said first, where an editor looks for it.
fn describe(err: &serde_yaml::Error) -> String {
    let text = err.to_string();
    match err.location() {
        Some(at) => {
            let place = format!("line {} column {}", at.line(), at.column());
            let bare = text.replace(&format!(" at {place}"), "");
            let bare = bare.split(", while ").next().unwrap_or_default();
            format!("error converting YAML to JSON: yaml: line {}, column {}: {bare}", at.line(), at.column())
        }
        None => format!("error converting YAML to JSON: yaml: {text}"),
    }
}

/// YAML as JSON sees it: keys are texts, tags are refused, merge keys are merged.
fn to_json(mut value: serde_yaml::Value) -> Result<Value, String> {
    value.apply_merge().map_err(|err| err.to_string())?;
    convert(value)
}

fn convert(value: serde_yaml::Value) -> Result<Value, String> {
    Ok(match value {
        serde_yaml::Value::Null => Value::Null,
        serde_yaml::Value::Bool(own) => Value::Bool(own),
        serde_yaml::Value::Number(own) => number(&own)?,
        serde_yaml::Value::String(own) => Value::String(own),
        serde_yaml::Value::Sequence(items) => Value::Array(items.into_iter().map(convert).collect::<Result<_, _>>()?),
        serde_yaml::Value::Mapping(map) => {
            let entries = map.into_iter().map(|(key, value)| Ok((key_text(&key)?, convert(value)?)));
            Value::Object(entries.collect::<Result<_, String>>()?)
        }
        serde_yaml::Value::Tagged(own) => return Err(format!("tag {} is not supported", own.tag)),
    })
}

fn number(own: &serde_yaml::Number) -> Result<Value, String> {
    if let Some(whole) = own.as_i64() {
        return Ok(whole.into());
    }
    if let Some(whole) = own.as_u64() {
        return Ok(whole.into());
    }
    let float = own.as_f64().and_then(serde_json::Number::from_f64);
    float.map(Value::Number).ok_or_else(|| format!("number {own} cannot be written as JSON"))
}

fn key_text(key: &serde_yaml::Value) -> Result<String, String> {
    match key {
        serde_yaml::Value::String(own) => Ok(own.clone()),
        serde_yaml::Value::Bool(own) => Ok(own.to_string()),
        serde_yaml::Value::Number(own) => Ok(own.to_string()),
        other => Err(format!("key {other:?} is not a text")),
    }
}

fn flatten(object: Value, source: &str, manifests: &mut Vec<Manifest>) -> Result<(), CliError> {
    let invalid = |reason: &str| {
        CliError::plain(format!(
            "error validating {source:?}: error validating data: {reason}; if you choose to ignore these errors, turn validation off with --validate=false"
        ))
    };
    if !object.is_object() {
        return Err(invalid("the document is not an object"));
    }
    let manifest = Manifest { object, source: source.to_owned() };
    let unset = [("apiVersion", manifest.api_version()), ("kind", manifest.kind())];
    let unset: Vec<String> =
        unset.iter().filter(|(_, own)| own.is_empty()).map(|(field, _)| format!("{field} not set")).collect();
    match unset.as_slice() {
        [] => {}
        [one] => return Err(invalid(one)),
        all => return Err(invalid(&format!("[{}]", all.join(", ")))),
    }
    if manifest.kind() == "List" || (manifest.kind().ends_with("List") && manifest.object.get("items").is_some()) {
        let Some(Value::Array(items)) = manifest.object.get("items").cloned() else { return Ok(()) };
        for item in items {
            flatten(item, source, manifests)?;
        }
        return Ok(());
    }
    manifests.push(manifest);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Manifest>, String> {
        let mut manifests = Vec::new();
        parse(text.as_bytes(), "app.yaml", &mut manifests).map_err(|err| err.to_string())?;
        Ok(manifests)
    }

    #[test]
    fn documents_and_lists_become_objects_and_empty_ones_are_skipped() {
        let text = "---\n# nothing\n---\napiVersion: v1\nkind: A\n---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: B}\n- {apiVersion: v1, kind: C}\n";
        let kinds: Vec<String> = parsed(text).expect("parsed").iter().map(|own| own.kind().to_owned()).collect();
        assert_eq!(kinds, ["A", "B", "C"]);
        assert_eq!(parsed(r#"{"apiVersion":"v1","kind":"J"}"#).expect("JSON")[0].kind(), "J");
    }

    #[test]
    fn a_text_that_does_not_parse_is_refused_with_file_line_and_column() {
        let refused = parsed("apiVersion: v1\nkind: A\nspec:\n  a: b: c\n").expect_err("refused");
        assert!(
            refused
                .starts_with("error: error parsing app.yaml: error converting YAML to JSON: yaml: line 4, column 7:"),
            "{refused}"
        );
    }

    #[test]
    fn a_key_that_stands_twice_is_refused() {
        let refused = parsed("apiVersion: v1\nkind: A\nkind: B\n").expect_err("refused");
        assert!(refused.contains("duplicate"), "{refused}");
    }

    #[test]
    fn an_object_without_kind_or_version_is_refused() {
        assert!(parsed("apiVersion: v1\n").expect_err("refused").contains("kind not set"));
        assert!(parsed("kind: A\n").expect_err("refused").contains("apiVersion not set"));
        assert!(parsed("- a\n").is_err());
    }

    #[test]
    fn merge_keys_and_keys_that_look_like_numbers_are_taken_as_kubectl_does() {
        let text = "apiVersion: v1\nkind: A\nx: &x {a: 1}\ny:\n  <<: *x\n  8: b\n";
        assert_eq!(parsed(text).expect("parsed")[0].object["y"], serde_json::json!({"a": 1, "8": "b"}));
    }
}
