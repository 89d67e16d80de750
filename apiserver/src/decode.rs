//! Request bodies into JSON values: JSON and YAML, with the fields that stand twice noticed.
//!
//! A plain `serde_json::Value` forgets duplicates while it is built; here they become complaints that the
//! registry turns into warnings or a refusal. Protobuf bodies are decoded by the HTTP side, which needs types.

mod twice;

use std::cell::{Cell, RefCell};
use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::registry::Body;
use crate::status::ApiError;
use crate::{go_json, yaml_depth};

pub(crate) use twice::{is_of_yaml, yaml_errors};

/// Largest body that is taken; the limit of the Kubernetes API server.
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Deepest nesting that is taken: bounds the stack of every later walk over the value.
pub(crate) const DEPTH_MAX: usize = 100;

/// What is said of a text that nests deeper; in YAML with Kubernetes' limit, for clients know its words.
const TOO_DEEP: &str = "exceeded max depth";
const YAML_TOO_DEEP: &str = "exceeded max depth of 10000";

/// What is said of YAML whose aliases make it much larger than it is.
const ALIASES: &str = "document contains excessive aliasing";

/// So much of a body that cannot be read stands in the answer.
const BODY_BYTES_SHOWN: usize = 30;

/// How many complaints are kept; the rest is one more of the same.
const COMPLAINTS_MAX: usize = 64;

/// So often a path is written out to see whether it has been complained about: paths may be long.
const COMPLAINT_TRIES_MAX: usize = 256;

/// Decodes a JSON body. `kind` is what the object must be (`ConfigMap`): it stands in the error.
pub fn json(body: &[u8], kind: &str) -> Result<Body, ApiError> {
    check_size(body)?;
    let collector = Collector::default();
    let mut input = serde_json::Deserializer::from_slice(body);
    let value = collector.root().deserialize(&mut input).and_then(|value| input.end().map(|()| value));
    let value = value.map_err(|error| {
        let why = json_complaint(&error, body).unwrap_or_else(|| go_json::complaint(body));
        unrecognized(kind, &format!("couldn't get version/kind; json parse error: {why}"), body)
    })?;
    check_type_fields(&value)
        .map_err(|why| unrecognized(kind, &format!("couldn't get version/kind; json parse error: {why}"), body))?;
    let complaints = collector.finish();
    let text = (!complaints.is_empty()).then(|| Bytes::copy_from_slice(body));
    Ok(Body { value, complaints, text })
}

/// Decodes a YAML body of one document.
pub fn yaml(body: &[u8], kind: &str) -> Result<Body, ApiError> {
    check_size(body)?;
    let collector = Collector::default();
    let value = parse_yaml(body, &collector).map_err(|why| unrecognized(kind, &why, body))?;
    Ok(Body { value, complaints: twice::in_yaml(body, collector.finish().len()), text: None })
}

/// Decodes a patch in JSON; `step` stands before the complaint.
pub(crate) fn patch(body: &[u8], step: &str) -> Result<Body, ApiError> {
    check_size(body)?;
    let collector = Collector::default();
    let mut input = serde_json::Deserializer::from_slice(body);
    let value = collector.root().deserialize(&mut input).and_then(|value| input.end().map(|()| value));
    let value = value.map_err(|error| {
        let why = if error.is_eof() { "unexpected end of JSON input".to_owned() } else { error.to_string() };
        let why = json_complaint(&error, body).unwrap_or(why);
        ApiError::bad_request(format!("{step}{why}"))
    })?;
    Ok(Body { value, complaints: collector.finish(), text: None })
}

/// Decodes a configuration for server-side apply: YAML, of which JSON is a part.
pub(crate) fn apply(body: &[u8]) -> Result<Body, ApiError> {
    check_size(body)?;
    let collector = Collector::default();
    let bad = |why: String| ApiError::bad_request(format!("error decoding YAML: {why}"));
    let value = parse_yaml(body, &collector).map_err(|why| bad(format!("error converting YAML to JSON: {why}")))?;
    let found = match &value {
        // Nothing at all is an object without fields.
        Value::Object(_) | Value::Null => {
            return Ok(Body { value, complaints: twice::in_yaml(body, collector.finish().len()), text: None });
        }
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
    };
    Err(bad(format!(
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {found} into Go value of type \
         map[string]interface {{}}"
    )))
}

/// What an object says of its type is text. In Go's words, which name the fields of a nameless struct.
fn check_type_fields(value: &Value) -> Result<(), String> {
    let fields = value.as_object().into_iter().flatten();
    for (name, value) in fields.filter(|(name, _)| ["apiVersion", "kind"].contains(&name.as_str())) {
        let found = match value {
            Value::String(_) | Value::Null => continue,
            Value::Array(_) => "array",
            Value::Object(_) => "object",
            Value::Number(_) => "number",
            Value::Bool(_) => "bool",
        };
        return Err(format!("json: cannot unmarshal {found} into Go struct field .{name} of type string"));
    }
    Ok(())
}

fn check_size(body: &[u8]) -> Result<(), ApiError> {
    if body.len() > BODY_BYTES_MAX { Err(ApiError::too_large(BODY_BYTES_MAX)) } else { Ok(()) }
}

/// What is said of JSON that goes beyond a limit of ours; `None` when it is no JSON.
fn json_complaint(error: &serde_json::Error, body: &[u8]) -> Option<String> {
    let why = error.is_data().then(|| error.to_string())?;
    Some(if why.starts_with(TOO_DEEP) { go_json::too_deep(body, DEPTH_MAX) } else { why })
}

fn parse_yaml(body: &[u8], collector: &Collector) -> Result<Value, String> {
    // The parser takes time by the square of the depth, and does not stop at any.
    if yaml_depth::is_too_deep(body, DEPTH_MAX) {
        return Err(format!("yaml: {YAML_TOO_DEEP}"));
    }
    collector.root().deserialize(serde_yaml::Deserializer::from_slice(body)).map_err(|error| yaml_complaint(&error))
}

/// As Kubernetes' reader says it: where only behind the first line, and without the column.
fn yaml_complaint(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    if text.contains(TOO_DEEP) || text.contains("recursion limit exceeded") {
        return format!("yaml: {YAML_TOO_DEEP}");
    }
    if text.contains(ALIASES) || text.contains("repetition limit exceeded") {
        return format!("yaml: {ALIASES}");
    }
    let why =
        [" at line ", " at position "].iter().fold(text.as_str(), |why, place| why.split(place).next().unwrap_or(why));
    match error.location().map(|place| place.line()) {
        Some(line) if line > 1 => format!("yaml: line {line}: {why}"),
        _ => format!("yaml: {why}"),
    }
}

/// The answer to a body that cannot be read, with the beginning of it.
pub(crate) fn unrecognized(kind: &str, why: &str, body: &[u8]) -> ApiError {
    let head = body.get(..BODY_BYTES_SHOWN).unwrap_or(body);
    let shown = match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(head).into_owned(),
        Some(_) => head.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    let more = if body.len() > head.len() { " ..." } else { "" };
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({shown}{more})"
    ))
}

/// What is wrong with the fields of a JSON text, in its order: what stands twice, and these unknown fields.
pub(crate) fn in_order(text: &[u8], unknown: &[String]) -> Vec<String> {
    let collector = Collector { unknown, ..Collector::default() };
    // It has been read before, and what cannot be read is told all the same.
    let _ = collector.root().deserialize(&mut serde_json::Deserializer::from_slice(text));
    collector.finish()
}

struct Collector<'u> {
    complaints: RefCell<Vec<String>>,
    /// Paths that are to be complained about when they come.
    unknown: &'u [String],
    /// How many more complaints are written out, those that repeat another included.
    tries: Cell<usize>,
    /// What the value may still grow by: one per value, and its text. A JSON body cannot hold more than its size;
    /// YAML aliases stand for as much as they like.
    left: Cell<usize>,
}

impl Default for Collector<'_> {
    fn default() -> Self {
        let (tries, left) = (Cell::new(COMPLAINT_TRIES_MAX), Cell::new(BODY_BYTES_MAX));
        Self { complaints: RefCell::default(), unknown: &[], tries, left }
    }
}

impl Collector<'_> {
    fn root(&self) -> Seed<'_> {
        Seed { collector: self, path: None, depth: 0 }
    }

    fn spend<E: serde::de::Error>(&self, amount: usize) -> Result<(), E> {
        let left = self.left.get().checked_sub(amount);
        self.left.set(left.ok_or_else(|| E::custom(ALIASES))?);
        Ok(())
    }

    fn duplicate(&self, path: &Path<'_>) {
        if let Some(path) = self.written_out(path) {
            self.complain(format!("duplicate field \"{path}\""));
        }
    }

    /// Complains about a field that is not known.
    fn see(&self, name: &str, path: &Path<'_>) {
        if !self.unknown.iter().any(|unknown| unknown.ends_with(name)) {
            return;
        }
        if let Some(path) = self.written_out(path).filter(|path| self.unknown.contains(path)) {
            self.complain(format!("unknown field \"{path}\""));
        }
    }

    fn written_out(&self, path: &Path<'_>) -> Option<String> {
        self.tries.set(self.tries.get().checked_sub(1)?);
        Some(path.to_string())
    }

    fn complain(&self, text: String) {
        let mut complaints = self.complaints.borrow_mut();
        if complaints.len() < COMPLAINTS_MAX && !complaints.contains(&text) {
            complaints.push(text);
        }
    }

    fn finish(self) -> Vec<String> {
        self.complaints.into_inner()
    }
}

/// Where a value stands; a chain on the stack, written out only for a complaint.
#[derive(Clone, Copy)]
enum Step<'p> {
    Field(&'p str),
    Index(usize),
}

#[derive(Clone, Copy)]
struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    step: Step<'p>,
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
        }
        match self.step {
            Step::Field(name) if self.parent.is_some() => write!(f, ".{name}"),
            Step::Field(name) => f.write_str(name),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

#[derive(Clone, Copy)]
struct Seed<'c> {
    collector: &'c Collector<'c>,
    path: Option<&'c Path<'c>>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        if self.depth > DEPTH_MAX {
            return Err(D::Error::custom(TOO_DEEP));
        }
        self.collector.spend(1)?;
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom(format!("json: unsupported value: {value}")))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.collector.spend(value.len())?;
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        self.collector.spend(value.len())?;
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let path = Path { parent: self.path, step: Step::Index(items.len()) };
            let seed = Seed { collector: self.collector, path: Some(&path), depth: self.depth + 1 };
            match input.next_element_seed(seed)? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = input.next_key_seed(Key)? {
            self.collector.spend(name.len())?;
            let path = Path { parent: self.path, step: Step::Field(&name) };
            let seed = Seed { collector: self.collector, path: Some(&path), depth: self.depth + 1 };
            self.collector.see(&name, &path);
            if fields.contains_key(&name) {
                self.collector.duplicate(&path);
            }
            let value = input.next_value_seed(seed)?;
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

/// A key: text, or in YAML a plain scalar that is written as text in JSON.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<String, D::Error> {
        input.deserialize_any(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is text")
    }

    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }

    fn visit_string<E>(self, value: String) -> Result<String, E> {
        Ok(value)
    }

    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_that_stands_twice_is_named_with_its_path_and_the_last_one_counts() {
        let body = json(br#"{"spec":{"ports":[{"port":1,"port":2}],"a":1},"spec":{"a":2}}"#, "Service").unwrap();
        assert_eq!(body.value, json!({"spec": {"a": 2}}));
        assert_eq!(body.complaints, [r#"duplicate field "spec.ports[0].port""#, r#"duplicate field "spec""#]);
    }

    #[test]
    fn yaml_gives_the_same_value_as_json_and_the_same_complaints() {
        let body = yaml(b"spec:\n  a: 1\n  a: 2\n  on: [x, 1.5, null, true]\n", "Service").unwrap();
        assert_eq!(body.value, json!({"spec": {"a": 2, "on": ["x", 1.5, null, true]}}));
        assert_eq!(body.complaints, [r#"line 3: key "a" already set in map"#]);
    }

    #[test]
    fn keys_that_stand_twice_in_yaml_are_told_by_the_line_of_the_second_value() {
        let text = b"a:\n  x: 1\nb: [{k: 1, k: 2}]\nc:\n  y: 1\n  y:\n    z: 1\na:\n  w: 1\n";
        let told = [
            r#"line 3: key "k" already set in map"#,
            r#"line 7: key "y" already set in map"#,
            r#"line 9: key "a" already set in map"#,
        ];
        assert_eq!(yaml(text, "ConfigMap").unwrap().complaints, told);
        assert_eq!(apply(text).unwrap().complaints, told);
        let many = "k: 1\n".repeat(100_000);
        assert!(yaml(many.as_bytes(), "ConfigMap").unwrap().complaints.len() <= COMPLAINTS_MAX);
    }

    #[test]
    fn what_is_wrong_with_fields_is_told_in_the_order_of_the_text() {
        let text = br#"{"spec": {"foo": 1, "a": 1, "a": 2, "bar": 1}}"#;
        let unknown = ["spec.bar".to_owned(), "spec.foo".to_owned()];
        assert_eq!(
            in_order(text, &unknown),
            [r#"unknown field "spec.foo""#, r#"duplicate field "spec.a""#, r#"unknown field "spec.bar""#]
        );
    }

    #[test]
    fn a_body_that_does_not_parse_is_a_bad_request_that_says_where() {
        let error = json(b"{\"a\": }", "ConfigMap").unwrap_err();
        assert_eq!(error.code, 400);
        assert!(
            error.message.starts_with("the object provided is unrecognized (must be of type ConfigMap): "),
            "{error}"
        );
        assert!(error.message.contains("invalid character '}' looking for beginning of value"), "{error}");
        assert!(error.message.ends_with("({\"a\": })"), "{error}");
        let error = json(b"text", "ConfigMap").unwrap_err();
        assert!(error.message.ends_with("(expecting 'r') (74657874)"), "{error}");
    }

    #[test]
    fn a_type_that_is_no_text_is_refused_in_gos_words() {
        let error = json(br#"{"apiVersion": "v1", "kind": 5}"#, "Pod").unwrap_err();
        assert_eq!(error.code, 400);
        assert_eq!(
            error.message,
            "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: \
             json: cannot unmarshal number into Go struct field .kind of type string ({\"apiVersion\": \"v1\", \"kind\": \
             5 ...)"
        );
        assert!(json(br#"{"apiVersion": null}"#, "Pod").is_ok());
    }

    #[test]
    fn a_body_of_the_largest_size_is_taken_and_one_that_its_aliases_make_larger_is_not() {
        let text = format!("\"{}\"", "a".repeat(BODY_BYTES_MAX - 2));
        let list = format!("[{}0]", "0,".repeat(BODY_BYTES_MAX / 2 - 2));
        for whole in [text, list] {
            assert!(json(whole.as_bytes(), "ConfigMap").is_ok());
        }
        let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(10_000), "*a,".repeat(1000));
        let list = format!("a: &a [{}]\nb: [{}]\n", "x,".repeat(10_000), "*a,".repeat(1000));
        for bomb in [text, list] {
            let error = yaml(bomb.as_bytes(), "ConfigMap").unwrap_err();
            assert!(error.message.contains("document contains excessive aliasing"), "{error}");
        }
        let few = yaml(b"a: &a {k: v}\nb: *a\n", "ConfigMap").unwrap();
        assert_eq!(few.value["b"], json!({"k": "v"}));
    }

    #[test]
    fn what_nests_too_deep_or_is_too_large_is_refused_without_harm() {
        let deep = "[".repeat(200_000);
        assert_eq!(json(deep.as_bytes(), "ConfigMap").unwrap_err().code, 400);
        assert_eq!(yaml(&deep.as_bytes()[..5000], "ConfigMap").unwrap_err().code, 400);
        assert_eq!(json(&vec![b' '; BODY_BYTES_MAX + 1], "ConfigMap").unwrap_err().code, 413);
        for (body, why) in [("[", "invalid character '[' exceeded max depth"), ("{\"a\":", "invalid character '{' ex")]
        {
            let error = patch(body.repeat(5000).as_bytes(), "error decoding patch: ").unwrap_err();
            assert!(error.message.starts_with(&format!("error decoding patch: {why}")), "{error}");
        }
    }

    #[test]
    fn yaml_that_nests_without_end_is_refused_at_once() {
        let brackets = "a: ".to_owned() + &"[".repeat(BODY_BYTES_MAX - 3);
        let maps = "{a: ".repeat(BODY_BYTES_MAX / 4);
        let dashes = "- ".repeat(BODY_BYTES_MAX / 2);
        let tags = "%TAG !a! b\n".repeat(BODY_BYTES_MAX / 11);
        let json = format!("{{\"x\":{}", "{\"a\":".repeat(100_000));
        let began = std::time::Duration::from_secs(30);
        let clock = reeve_api::clock::RealClock::new();
        for body in [brackets, maps, dashes, tags, json] {
            let error = yaml(body.as_bytes(), "ConfigMap").unwrap_err();
            assert!(error.message.contains("yaml: exceeded max depth of 10000"), "{error}");
            assert_eq!(apply(body.as_bytes()).unwrap_err().code, 400);
        }
        assert!(reeve_api::clock::Clock::monotonic(&clock) < began);
    }
}
