//! What flow control costs a request when nobody waits: classification, a seat, and giving it back.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run has nothing to say")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use futures::FutureExt as _;
use reeve_api::clock::RealClock;
use reeve_api::rng::{SeededRng, SharedRng};
use reeve_apiserver::flowcontrol::{Admitted, Asked, FlowControl, Wanted, What};
use reeve_apiserver::registry::UserInfo;
use reeve_kinds::bootstrap;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// As a server has it, with further schemas, each for a user of its own.
fn control(schemas: usize) -> Arc<FlowControl> {
    let rng: SharedRng = Arc::new(SeededRng::new(1));
    let control = FlowControl::new(600, RealClock::shared(), &rng);
    let levels = [bootstrap::mandatory_priority_levels(), bootstrap::suggested_priority_levels()].concat();
    let mut all = [bootstrap::mandatory_flow_schemas(), bootstrap::suggested_flow_schemas()].concat();
    all.extend((0..schemas).map(schema));
    control.configure(levels, all);
    control
}

fn schema(number: usize) -> Value {
    let rule = json!({
        "subjects": [{"kind": "User", "user": {"name": format!("user-{number}")}}],
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}],
    });
    json!({
        "metadata": {"name": format!("schema-{number}")},
        "spec": {"priorityLevelConfiguration": {"name": "workload-low"}, "matchingPrecedence": 500, "rules": [rule]},
    })
}

fn admit(control: &FlowControl, user: &UserInfo, verb: &str) -> Admitted {
    let what = What::Resource {
        group: "",
        version: "v1",
        resource: "configmaps",
        subresource: "",
        namespace: "default",
        name: "settings-1",
    };
    let path = "/api/v1/namespaces/default/configmaps/settings-1";
    let asked = Asked { user, verb, what, path };
    let classified = control.classify(&asked).unwrap();
    let wanted = Wanted::default();
    let admitted = control.admit(classified, &asked, &wanted, || None, Duration::from_secs(15));
    admitted.now_or_never().unwrap().ok().unwrap()
}

fn nobody_waits(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let _inside = runtime.enter();
    let admin = UserInfo::new("admin", &["system:masters", "system:authenticated"]);
    let account = UserInfo::new(
        "system:serviceaccount:shop:web",
        &["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"],
    );
    let plain = control(0);
    for (name, user, verb) in
        [("exempt get", &admin, "get"), ("queued get", &account, "get"), ("queued write", &account, "update")]
    {
        criterion.bench_function(&format!("flow control of an {name}"), |bench| {
            bench.iter(|| black_box(admit(&plain, user, verb)));
        });
    }
    let held: Vec<_> = (0..200).map(|_| admit(&plain, &account, "get")).collect();
    criterion.bench_function("flow control of a get among 200 that run", |bench| {
        bench.iter(|| black_box(admit(&plain, &account, "get")));
    });
    drop(held);
    let many = control(5000);
    criterion.bench_function("flow control of a get with 5,000 schemas", |bench| {
        bench.iter(|| black_box(admit(&many, &account, "get")));
    });
}

criterion_group!(benches, nobody_waits);
criterion_main!(benches);
