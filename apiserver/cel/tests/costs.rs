//! What expressions cost: when they run, and at most.
#![allow(missing_docs, reason = "tests")]

use reeve_cel::{CostEstimate, Decl, DeclaredSizes, Env, PER_CALL_LIMIT, Value};
use serde_json::{Value as Json, json};

fn schema() -> Json {
    json!({ "type": "object", "properties": {
        "text": { "type": "string", "maxLength": 10 },
        "long": { "type": "string" },
        "number": { "type": "integer" },
        "flag": { "type": "boolean" },
        "list": { "type": "array", "maxItems": 5, "items": { "type": "string", "maxLength": 10 } },
        "numbers": { "type": "array", "maxItems": 5, "items": { "type": "integer" } },
        "open": { "type": "array", "items": { "type": "integer" } },
        "map": { "type": "object", "maxProperties": 4, "additionalProperties": { "type": "integer" } },
        "inner": { "type": "object", "properties": { "a": { "type": "string", "maxLength": 5 } } }
    }})
}

fn object() -> Json {
    json!({
        "text": "0123456789", "long": "a".repeat(30), "number": 1, "flag": true, "list": ["aaaaaaaaaaaa", "b"],
        "numbers": [1, 2, 3], "open": [1], "map": { "a": 1, "b": 2 }, "inner": { "a": "x" }
    })
}

/// The cost of an expression on `object()`, and what it is estimated to cost.
#[allow(clippy::expect_used, reason = "only tests call it")]
fn costs(text: &str) -> (u64, CostEstimate) {
    let decl = Decl::from_schema(&schema(), "selfType", false, &|_| None).expect("a declaration");
    let env = Env::new().declared("self", &decl);
    let program = env.compile(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let object = object();
    let own = Value::typed(&object, &decl).expect("it fits");
    let outcome = program.run(&[("self", own)], PER_CALL_LIMIT);
    outcome.result.unwrap_or_else(|error| panic!("{text}: {error}"));
    (outcome.cost, program.estimate(&DeclaredSizes { decl: &decl }))
}

#[track_caller]
fn check(table: &[(&str, u64, u64, u64)]) {
    let mut wrong = Vec::new();
    for (text, cost, min, max) in table {
        let found = costs(text);
        if found != (*cost, CostEstimate { min: *min, max: *max }) {
            wrong.push(format!("{text}\n   {found:?}\n   not {cost}, {min}..{max}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn reading_costs_one_for_each_step() {
    // Comparing a field that has no size is estimated to cost nothing: that is how Kubernetes counts.
    check(&[
        ("true", 0, 0, 0),
        ("self.number", 2, 2, 2),
        ("self.inner.a", 3, 3, 3),
        ("self.list[0]", 3, 3, 3),
        ("has(self.inner.a)", 2, 2, 2),
        ("self.number == 1", 3, 2, 2),
        ("self.number + 1", 3, 3, 3),
        ("!self.flag", 3, 3, 3),
    ]);
}

#[test]
fn branches_that_are_not_taken_cost_nothing() {
    check(&[
        ("self.flag || self.number == 1", 2, 2, 4),
        ("self.flag && self.number == 1", 5, 2, 4),
        // A variable in a branch is looked at for free, its fields are not.
        ("self.flag ? self.number : 1", 3, 2, 4),
    ]);
}

#[test]
fn texts_cost_by_their_length() {
    check(&[
        // At most ten letters of four bytes each.
        ("self.text == 'abc'", 3, 3, 3),
        ("self.text.startsWith('abc')", 3, 3, 3),
        ("self.long.startsWith(self.text)", 7, 4, 8),
        ("self.text.contains('abc')", 3, 2, 6),
        ("self.text.matches('a.*')", 4, 3, 7),
        ("self.text.lowerAscii() == ''", 3, 2, 6),
        ("self.text + 'abcdefghij' == ''", 4, 3, 7),
        ("self.text.size() == 1", 4, 4, 4),
        ("self.text.split('') == []", 4, 12, 20),
    ]);
}

#[test]
fn loops_cost_by_their_rounds() {
    check(&[
        // Each round: 2 for the condition, 1 for the accumulator, the predicate; and 1 for the result.
        ("self.numbers.all(n, n > 0)", 18, 3, 28),
        ("self.numbers.exists(n, n == 2)", 18, 3, 28),
        ("self.numbers.map(n, n)", 42, 13, 78),
        ("self.numbers.sum() == 6", 6, 3, 8),
        ("self.map.all(k, self.map[k] > 0)", 17, 3, 35),
        ("1 in self.numbers", 5, 2, 7),
        ("self.number in [1, 2, 3]", 2, 15, 15),
        ("[1, 2].size() == 2", 2, 12, 12),
        ("self.open.all(n, true)", 6, 3, 4_718_592),
    ]);
}

#[test]
fn libraries_cost_what_kubernetes_says() {
    check(&[
        ("self.list.isSorted()", 3, 2, 27),
        ("self.list.join(',') == ''", 5, 2, 23),
        ("quantity('1Gi') == quantity('1Gi')", 3, 3, 3),
        ("ip('127.0.0.1').isLoopback()", 2, 2, 2),
        ("cidr('192.168.0.0/24').containsIP('192.168.0.5')", 5, 5, 8),
        ("sets.contains(self.numbers, [1])", 6, 13, 18),
        ("self.numbers.slice(0, 2).size() == 2", 17, 17, 17),
        ("!format.dns1123Label().validate(self.text).hasValue()", 21, 5, 133),
    ]);
}

#[test]
fn what_costs_too_much_ends() {
    let env = Env::new();
    let program = env.compile("lists.range(100000).all(n, n >= 0)").expect("it compiles");
    let outcome = program.run(&[("x", Value::Null)], PER_CALL_LIMIT);
    assert!(outcome.result.is_ok(), "{outcome:?}");
    let outcome = program.run(&[("x", Value::Null)], 1_000);
    assert!(outcome.result.expect_err("too dear").is_cost_limit());
    assert!(outcome.cost > 1_000);
}
