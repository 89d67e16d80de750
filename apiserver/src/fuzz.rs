//! Every parser of what comes from outside, fed with what nobody meant to send: the kept inputs of `apiserver/corpus`
//! and mutations of them.
//!
//! A run is bounded and always the same: the mutations follow from a fixed seed. An input that once did harm is added
//! to the corpus under a name that says what it did. What a parser owes: an answer or an error, in bounded time, and
//! where it can write what it has read, that reading again gives the same.

use std::path::PathBuf;

use http::HeaderValue;
use http::header::{ACCEPT, HeaderMap};
use reeve_api::rng::{Rng as _, RngExt as _, SeededRng};
use reeve_api::selector::{FieldSelector, LabelSelector};
use serde_json::{Value, json};

use crate::decode;
use crate::http::fuzzed;
use crate::registry::{Body, Patch, Token};

/// Mutations of each kept input.
const MUTATIONS: usize = 300;

/// Largest input that is made.
const INPUT_BYTES_MAX: usize = 64 * 1024;

/// The kept inputs of a target, by name.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{}", folder.display());
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Runs a target over its kept inputs and their mutations.
fn run(target: &str, check: impl Fn(&[u8])) {
    let (kept, rng) = (corpus(target), SeededRng::new(0x5eed));
    for input in &kept {
        check(input);
        for _ in 0..MUTATIONS {
            check(&mutated(input, &kept, &rng));
        }
    }
}

/// An input with one to four changes: bits, bytes and pieces turned, lost, doubled, or taken from another input.
fn mutated(input: &[u8], others: &[Vec<u8>], rng: &SeededRng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    let below = |len: usize| usize::try_from(rng.below(len.max(1) as u64)).unwrap();
    for _ in 0..=rng.below(4) {
        let at = below(bytes.len());
        let end = (at + 1 + below(16)).min(bytes.len());
        match rng.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << rng.below(8),
            1 if !bytes.is_empty() => bytes[at] = rng.next_u64().to_le_bytes()[0],
            2 => bytes.truncate(at),
            3 if at < end => drop(bytes.drain(at..end)),
            4 if at < end => {
                let piece = bytes[at..end].repeat(1 + below(64));
                bytes.splice(at..at, piece);
            }
            5 => {
                let other = &others[below(others.len())];
                let from = below(other.len());
                bytes.splice(at..at, other[from..].iter().copied().take(64).collect::<Vec<_>>());
            }
            _ => {
                let words: [&[u8]; 8] =
                    [b"null", b"\"\"", b"{}", b"[]", b"-1", b"9223372036854775808", b"\xff\xff", b"$patch"];
                bytes.splice(at..at, words[below(words.len())].iter().copied());
            }
        }
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

/// Whether two values are the same, but for the last bit of a fraction: the JSON reader takes the nearest but one.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| one.0 == other.0 && is_same(one.1, other.1))
        }
        (Value::Number(one), Value::Number(other)) if one.is_f64() && other.is_f64() => {
            let (one, other) = (one.as_f64().unwrap(), other.as_f64().unwrap());
            (one - other).abs() <= one.abs() * 1e-14
        }
        _ => one == other,
    }
}

#[test]
fn protobuf_bodies() {
    run("protobuf", fuzzed::protobuf);
}

#[test]
fn json_bodies() {
    run("json", |bytes| {
        let Ok(body) = decode::json(bytes, "ConfigMap") else { return };
        let again = decode::json(body.value.to_string().as_bytes(), "ConfigMap").unwrap().value;
        assert!(is_same(&again, &body.value), "{again} {}", body.value);
        fuzzed::indented(bytes, &body.value);
    });
}

#[test]
fn yaml_bodies() {
    run("yaml", |bytes| {
        let Ok(body) = decode::yaml(bytes, "ConfigMap") else { return };
        let text = fuzzed::yaml(&body.value);
        let again = decode::yaml(text.as_bytes(), "ConfigMap").unwrap().value;
        assert!(is_same(&again, &body.value), "{text}");
    });
}

#[test]
fn accept_headers() {
    run("accept", |bytes| {
        let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, value);
        fuzzed::accept(&headers);
    });
}

#[test]
fn selectors() {
    run("selector", |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(selector) = LabelSelector::parse(&text) {
            let shown = selector.to_string();
            assert_eq!(LabelSelector::parse(&shown).unwrap().to_string(), shown);
        }
        if let Ok(selector) = FieldSelector::parse(&text) {
            let shown = selector.to_string();
            assert_eq!(FieldSelector::parse(&shown).unwrap().to_string(), shown);
        }
    });
}

#[test]
fn continue_tokens() {
    use base64::Engine as _;
    run("continue", |bytes| {
        let forged = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(bytes);
        for text in [String::from_utf8_lossy(bytes).into_owned(), forged] {
            let Ok(token) = Token::decode(&text) else { continue };
            assert_eq!(Token::decode(&token.encode()).unwrap(), token);
            assert!(!token.start.split('/').any(|part| matches!(part, "" | "." | "..")), "{token:?}");
        }
    });
}

#[test]
fn patches() {
    let kinds = reeve_kinds::builtin();
    let deployment = kinds.iter().find(|kind| kind.names().kind == "Deployment").unwrap();
    let object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"a": "b"}},
        "spec": {"replicas": 1, "template": {"spec": {"containers": [
            {"name": "a", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}], "args": ["x", "y"]},
            {"name": "b", "image": "j"},
        ], "volumes": [{"name": "v", "emptyDir": {}}]}}},
    });
    run("patch", |bytes| {
        let Ok(body) = decode::json(bytes, "Deployment") else { return };
        let value = body.value.clone();
        for patch in [Patch::Json(value), Patch::Merge(body.clone()), Patch::Strategic(body)] {
            let mut target = object.clone();
            if patch.apply(&mut target, deployment.patch_schema()).is_ok() {
                assert!(target.to_string().len() < 16 * INPUT_BYTES_MAX, "a small patch makes no large object");
            }
        }
    });
}

#[test]
fn queries_paths_and_spans_of_time() {
    run("query", |bytes| fuzzed::query(&String::from_utf8_lossy(bytes)));
}

#[test]
fn what_is_read_twice_is_the_same() {
    // The mutations themselves: a run that is not repeated cannot be looked into.
    let kept = corpus("json");
    let made = |seed| {
        let rng = SeededRng::new(seed);
        (0..20).map(|_| mutated(&kept[0], &kept, &rng)).collect::<Vec<_>>()
    };
    assert_eq!(made(1), made(1));
    assert_ne!(made(1), made(2));
    assert_eq!(Body::from(Value::Null).value, Value::Null);
}
