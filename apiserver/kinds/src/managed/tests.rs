//! Sequences of writes with what Kubernetes' own field manager made of them.
//!
//! `testdata/sequences.json` was recorded with `k8s.io/apimachinery` v0.36.2 and structured-merge-diff v6.3.2, without
//! defaults, admission or storage: written by hand and drawn at random, over Deployments, Pods, Services, ConfigMaps.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::*;
use crate::Kind;

/// When each write takes place, and what the times say between the writes.
const NOW: &str = "2026-11-21T00:00:00Z";
const RECORDED: &str = "2026-01-02T03:04:05Z";

fn kind_of(object: &Value) -> Arc<dyn Kind> {
    let (version, name) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let is = |kind: &Arc<dyn Kind>| kind.names().kind == name && kind.names().api_version() == version;
    crate::builtin().into_iter().find(is).expect(name)
}

/// Brings an object into the form in which the API server knows it.
fn conformed(mut object: Value) -> Value {
    let kind = kind_of(&object);
    kind.conform(&mut object).unwrap();
    object
}

/// Without what is null, empty or zero: which of them an object shows is no matter of managed fields.
fn essence(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (key.clone(), essence(value)));
            Value::Object(fields.filter(|(_, value)| !is_nothing(value)).collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(essence).collect(),
        plain => plain.clone(),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(truth) => !truth,
    }
}

/// An object as it goes through a sequence.
struct Story {
    object: Value,
    managed: Value,
    exists: bool,
}

impl Story {
    fn context<R>(&self, step: &Value, kind: &dyn Kind, run: impl FnOnce(&Context<'_>) -> R) -> R {
        let subresource = step["subresource"].as_str().unwrap_or_default();
        let reset = match (kind.names().kind, subresource) {
            ("ConfigMap", _) => Set::default(),
            (_, "status") => Set::of(&[&["spec"]]),
            _ => Set::of(&[&["status"]]),
        };
        let api_version = kind.names().api_version();
        run(&Context {
            api_version: &api_version,
            kind: kind.names().kind,
            subresource,
            schema: kind.merge_schema(),
            reset: &reset,
            versions: &OneVersion,
            now: NOW,
        })
    }

    fn step(&mut self, step: &Value, kind: &dyn Kind) -> Result<(), ApplyError> {
        let manager = step["manager"].as_str().unwrap();
        let wanted = step["object"].clone();
        let (object, managed) = self.context(step, kind, |context| {
            if step["op"] == "apply" {
                let managed = Managed::stored(&self.managed).unwrap();
                let force = step["force"] == true;
                let applied = apply(context, &self.object, managed, Request { config: &wanted, manager, force })?;
                return Ok((conformed(applied.object), applied.managed));
            }
            let new = conformed(wanted);
            let sent = if step["op"] == "reset" { json!([]) } else { Value::Null };
            let managed = before(&self.managed, &sent, context.subresource);
            let managed = update(context, self.exists.then_some(&self.object), &new, managed, manager).unwrap();
            Ok((new, managed))
        })?;
        self.object = object;
        self.object["metadata"]["uid"] = "u".into();
        self.exists = true;
        self.managed = managed.encode();
        for entry in self.managed.as_array_mut().into_iter().flatten() {
            if entry.get("time").is_some() {
                entry["time"] = RECORDED.into();
            }
        }
        Ok(())
    }
}

/// Complaints about one object come in no order in Go.
fn lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

fn refused(error: &ApplyError, step: &Value) {
    let (text, mut fields) = match error {
        ApplyError::BadRequest(text) | ApplyError::Unfit(text) => (text.clone(), Vec::new()),
        ApplyError::Conflicts(conflicts) => {
            let fields = conflicts.iter().map(|conflict| format!("{} {}", conflict.field(), conflict.message()));
            (conflict_message(conflicts), fields.collect())
        }
    };
    fields.sort();
    assert_eq!(lines(&text), lines(step["error"].as_str().unwrap_or("no error")));
    let wanted: Vec<_> = step["fields"].as_array().into_iter().flatten().map(|field| field.as_str().unwrap()).collect();
    assert_eq!(fields, wanted);
}

#[test]
fn every_write_leaves_the_managers_and_the_object_that_kubernetes_leaves() {
    let sequences: Vec<Value> = serde_json::from_str(include_str!("testdata/sequences.json")).unwrap();
    for sequence in &sequences {
        let name = sequence["name"].as_str().unwrap();
        let steps = sequence["steps"].as_array().unwrap();
        let kind = kind_of(&steps[0]["object"]);
        let empty = json!({"apiVersion": kind.names().api_version(), "kind": kind.names().kind, "metadata": {}});
        let mut story = Story { object: empty, managed: Value::Null, exists: false };
        for (at, step) in steps.iter().enumerate() {
            match story.step(step, &*kind) {
                Err(error) => refused(&error, step),
                Ok(()) => {
                    assert!(step["error"].is_null(), "{name}, step {at}: not refused: {}", step["error"]);
                    let managed = if story.managed.is_null() { json!([]) } else { story.managed.clone() };
                    assert_eq!(managed, step["managed"], "{name}, step {at}: {} by {}", step["op"], step["manager"]);
                    assert_eq!(
                        essence(&story.object),
                        essence(&conformed(step["result"].clone())),
                        "{name}, step {at}"
                    );
                }
            }
        }
    }
}
