//! How long compiling and running an expression takes.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up fails")]

use criterion::{Criterion, criterion_group, criterion_main};
use reeve_cel::{Decl, Env, PER_CALL_LIMIT, Value};
use serde_json::{Value as Json, json};

fn schema() -> Json {
    let container = json!({ "type": "object", "properties": {
        "name": { "type": "string", "maxLength": 63 },
        "image": { "type": "string", "maxLength": 200 },
        "privileged": { "type": "boolean" }
    }});
    json!({ "type": "object", "properties": {
        "replicas": { "type": "integer" },
        "containers": { "type": "array", "maxItems": 10, "items": container }
    }})
}

const RULE: &str = "self.replicas <= 10 && self.containers.all(c, has(c.image) && c.image.startsWith('registry/') \
                    && !c.name.matches('^test-.*$') && (!has(c.privileged) || !c.privileged))";

fn compile(c: &mut Criterion) {
    let decl = Decl::from_schema(&schema(), "selfType", false, &|_| None).expect("a declaration");
    let env = Env::new().declared("self", &decl);
    c.bench_function("compile a rule", |b| b.iter(|| env.compile(RULE).expect("it compiles")));
}

fn run(c: &mut Criterion) {
    let decl = Decl::from_schema(&schema(), "selfType", false, &|_| None).expect("a declaration");
    let program = Env::new().declared("self", &decl).compile(RULE).expect("it compiles");
    let containers: Vec<Json> =
        (0..5).map(|index| json!({ "name": format!("web-{index}"), "image": "registry/web:1" })).collect();
    let object = json!({ "replicas": 3, "containers": containers });
    c.bench_function("run a rule on five containers", |b| {
        b.iter(|| {
            let own = Value::typed(&object, &decl).expect("it fits");
            program.run(&[("self", own)], PER_CALL_LIMIT).result.expect("a value")
        });
    });
}

criterion_group!(benches, compile, run);
criterion_main!(benches);
