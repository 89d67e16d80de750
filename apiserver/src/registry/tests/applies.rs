//! Server-side apply, and who manages what after the other writes.

use super::*;

fn config(object: Value) -> Patch {
    Patch::Apply(object.into())
}

async fn apply(world: &World, path: &str, manager: &str, object: Value) -> Result<Value, ApiError> {
    apply_with(world, path, manager, object, |_| {}).await
}

async fn apply_with(
    world: &World,
    path: &str,
    manager: &str,
    object: Value,
    change: impl FnOnce(&mut Options),
) -> Result<Value, ApiError> {
    let request = world.with(path, |options| {
        manager.clone_into(&mut options.field_manager);
        change(options);
    });
    world.registry.patch(&request, config(object)).await.map(|written| written.object.value())
}

async fn update_by(world: &World, path: &str, client: &str, object: Value) -> Value {
    let request = world.with(path, |options| client.clone_into(&mut options.client));
    world.registry.update(&request, object.into()).await.unwrap().object.value()
}

/// `MANAGER OPERATION [SUBRESOURCE] FIELDS`, one line per entry.
fn managers(object: &Value) -> Vec<String> {
    let entries = meta::get(object, "managedFields").as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    entries
        .iter()
        .map(|entry| {
            let words = [text(entry, "manager"), text(entry, "operation"), text(entry, "subresource")];
            let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
            format!("{} {}", words.join(" "), entry["fieldsV1"])
        })
        .collect()
}

#[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

#[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

fn web(replicas: Option<i64>, image: &str) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": "web"}}, "template": {
        "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}});
    if let Some(replicas) = replicas {
        spec["replicas"] = replicas.into();
    }
    deployment(spec)
}

#[tokio::test]
async fn an_apply_creates_what_is_not_there_and_takes_away_what_it_no_longer_names() {
    let world = World::new().await;
    let made = apply(&world, "configmaps/a", "x", config_map(json!({"k": "1", "l": "1"}))).await.unwrap();
    assert_eq!(managers(&made), [r#"x Apply {"f:data":{"f:k":{},"f:l":{}}}"#]);
    assert!(!meta::text(&made, "uid").is_empty() && !meta::text(&made, "creationTimestamp").is_empty());
    assert_eq!(meta::get(&made, "managedFields")[0]["time"], START);
    let less = apply(&world, "configmaps/a", "x", config_map(json!({"k": "1"}))).await.unwrap();
    assert_eq!(less["data"], json!({"k": "1"}));
}

#[tokio::test]
async fn who_writes_a_daemon_set_manages_the_count_of_its_templates_but_who_applies_it_does_not() {
    let world = World::new().await;
    let mut daemons = web(None, "i:1");
    daemons["kind"] = "DaemonSet".into();
    let count = r#""f:deprecated.daemonset.template.generation":{}"#;
    let applied = apply(&world, "daemonsets/web", "x", daemons.clone()).await.unwrap();
    assert!(managers(&applied).len() == 1 && !managers(&applied)[0].contains(count), "{:?}", managers(&applied));
    let changed = update_by(&world, "daemonsets/web", "y", daemons).await;
    assert!(managers(&changed).iter().any(|line| line.starts_with("y Update") && line.contains(count)));
    assert_eq!(changed["metadata"]["annotations"], applied["metadata"]["annotations"]);
}

#[tokio::test]
async fn what_holds_any_object_is_managed_as_a_whole() {
    let world = World::new().await;
    let revision = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "a"},
        "data": {"k": {"l": 1}}, "revision": 1});
    let applied = apply(&world, "controllerrevisions/a", "x", revision).await.unwrap();
    assert_eq!(managers(&applied), [r#"x Apply {"f:data":{},"f:revision":{}}"#]);
}

#[tokio::test]
async fn an_apply_that_changes_nothing_writes_nothing_not_even_a_time() {
    let world = World::new().await;
    let first = apply(&world, "deployments/web", "x", web(Some(2), "i:1")).await.unwrap();
    let before = revision(&world);
    world.clock.advance(Duration::from_secs(60));
    let again = apply(&world, "deployments/web", "x", web(Some(2), "i:1")).await.unwrap();
    assert_eq!((again, revision(&world)), (first, before));
}

#[tokio::test]
async fn what_others_manage_is_a_conflict_unless_forced() {
    let world = World::new().await;
    apply(&world, "deployments/web", "x", web(Some(2), "i:1")).await.unwrap();
    update_by(&world, "deployments/web", "hpa", web(Some(5), "i:1")).await;
    let error = apply(&world, "deployments/web", "x", web(Some(2), "i:1")).await.unwrap_err();
    assert_eq!((error.code, error.reason), (409, "Conflict"));
    assert_eq!(error.message, r#"Apply failed with 1 conflict: conflict with "hpa" using apps/v1: .spec.replicas"#);
    let cause = &error.details.unwrap().causes[0];
    assert_eq!(
        (cause.reason.as_str(), cause.message.as_str(), cause.field.as_str()),
        ("FieldManagerConflict", r#"conflict with "hpa" using apps/v1"#, ".spec.replicas")
    );
    let mine = apply_with(&world, "deployments/web", "x", web(Some(2), "i:1"), |options| options.force = Some(true));
    let mine = mine.await.unwrap();
    assert_eq!(mine["spec"]["replicas"], 2);
    assert!(managers(&mine).iter().all(|line| !line.starts_with("hpa ")), "{:?}", managers(&mine));
}

#[tokio::test]
async fn updates_and_status_have_managers_of_their_own_and_what_a_part_resets_is_nobodys() {
    let world = World::new().await;
    let request = world.with("deployments", |options| options.client = "kubectl".to_owned());
    let mut object = web(Some(1), "i:1");
    object["status"] = json!({"replicas": 9});
    let made = world.registry.create(&request, object.into()).await.unwrap().object.value();
    let all = managers(&made);
    assert!(
        all.len() == 1 && all[0].starts_with(r#"kubectl Update {"f:spec":{"f:progressDeadlineSeconds":{}"#),
        "{all:?}"
    );
    let mut reported = made.clone();
    reported["status"] = json!({"replicas": 1, "observedGeneration": 1});
    reported["spec"]["replicas"] = 7.into();
    let reported = update_by(&world, "deployments/web:status", "controller", reported).await;
    let status = r#"controller Update status {"f:status":{"f:observedGeneration":{},"f:replicas":{}}}"#;
    assert!(managers(&reported).contains(&status.to_owned()), "{:?}", managers(&reported));
}

#[tokio::test]
async fn a_scale_takes_the_replicas_from_whoever_applied_them() {
    let world = World::new().await;
    apply(&world, "deployments/web", "x", web(Some(2), "i:1")).await.unwrap();
    let request = world.with("deployments/web:scale", |options| options.client = "kubectl".to_owned());
    let scale = Patch::Merge(json!({"spec": {"replicas": 5}}).into());
    let scaled = world.registry.patch(&request, scale).await.unwrap().object.value();
    assert!(scaled["spec"]["replicas"] == 5 && meta::get(&scaled, "managedFields").is_null());
    let now = world.get("deployments/web").await.unwrap();
    let line = r#"kubectl Update scale {"f:spec":{"f:replicas":{}}}"#.to_owned();
    assert!(managers(&now).contains(&line), "{:?}", managers(&now));
    let error = apply(&world, "deployments/web", "x", web(Some(2), "i:1")).await.unwrap_err();
    assert!(error.message.contains(r#""kubectl" with subresource "scale" using apps/v1: .spec.replicas"#), "{error}");
    apply(&world, "deployments/web", "x", web(None, "i:1")).await.unwrap();
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 3}});
    let error = apply(&world, "deployments/web:scale", "y", scale.clone()).await.unwrap_err();
    assert!(error.is_conflict(), "{error}");
    let forced = apply_with(&world, "deployments/web:scale", "y", scale, |options| options.force = Some(true));
    assert_eq!(forced.await.unwrap()["spec"]["replicas"], 3);
    let line = r#"y Apply scale {"f:spec":{"f:replicas":{}}}"#.to_owned();
    assert!(managers(&world.get("deployments/web").await.unwrap()).contains(&line));
}

#[tokio::test]
async fn managers_are_kept_when_a_client_sends_none_and_forgotten_when_it_asks_for_that() {
    let world = World::new().await;
    apply(&world, "configmaps/a", "x", config_map(json!({"k": "1"}))).await.unwrap();
    let kept = update_by(&world, "configmaps/a", "y", config_map(json!({"k": "1", "l": "1"}))).await;
    let both = [r#"x Apply {"f:data":{"f:k":{}}}"#, r#"y Update {"f:data":{"f:l":{}}}"#];
    assert_eq!(managers(&kept), both);
    let bad = json!([{"manager": "z", "operation": "Steal", "apiVersion": "v1", "fieldsType": "FieldsV1"}]);
    let mut sent = kept.clone();
    sent["metadata"]["managedFields"] = bad;
    assert_eq!(managers(&update_by(&world, "configmaps/a", "y", sent).await), both);
    let reset = Patch::Merge(json!({"metadata": {"managedFields": [{}]}}).into());
    let reset = world.registry.patch(&world.request("configmaps/a"), reset).await.unwrap().object.value();
    assert!(managers(&reset).is_empty());
    let before = apply(&world, "configmaps/a", "x", config_map(json!({"k": "2"}))).await.unwrap_err();
    assert_eq!(before.message, r#"Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.k"#);
}

#[tokio::test]
async fn an_apply_that_makes_no_sense_is_refused_in_kubernetes_words() {
    let world = World::new().await;
    let error = |object| async { apply(&world, "deployments/web", "x", object).await.unwrap_err() };
    let other = error(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}})).await;
    assert_eq!((other.code, other.message.as_str()), (400, "invalid object type: /v1, Kind=ConfigMap"));
    let mut object = web(None, "i:1");
    object["spec"]["foo"] = 1.into();
    let unknown = error(object).await;
    assert_eq!(
        (unknown.code, unknown.message.as_str()),
        (
            500,
            "failed to create typed patch object (/web; apps/v1, Kind=Deployment): .spec.foo: field not declared in schema"
        )
    );
    let mut object = web(None, "i:1");
    object["metadata"]["managedFields"] = json!([]);
    assert_eq!(error(object).await.message, "metadata.managedFields must be nil");
    let mut object = web(None, "i:1");
    object["metadata"]["uid"] = "u".into();
    let uid = error(object).await;
    assert!(uid.is_conflict() && uid.message.contains("uid mismatch"), "{uid}");
    let mut object = web(None, "i:1");
    object["metadata"]["name"] = "other".into();
    assert_eq!(error(object).await.code, 400);
    let complaints = vec!["line 3: key \"a\" already set in map".to_owned()];
    let body = Body { value: web(None, "i:1"), complaints, text: None };
    let request = world.with("deployments/web", |options| {
        options.field_manager = "x".to_owned();
        options.field_validation = FieldValidation::Strict;
    });
    let strict = world.registry.patch(&request, Patch::Apply(body)).await.unwrap_err();
    assert_eq!(strict.code, 400);
    assert_eq!(
        strict.message,
        "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 3: key \"a\" \
         already set in map"
    );
    let status = apply(&world, "deployments/web:status", "x", web(None, "i:1")).await.unwrap_err();
    assert!(status.is_not_found(), "{status}");
}

#[tokio::test]
async fn an_apply_creates_only_what_the_user_may_create_and_a_dry_run_nothing() {
    let world = World::new().await;
    let refusal = ApiError::forbidden(world.request("configmaps").resource.names(), "a", "not you");
    let refused = apply_with(&world, "configmaps/a", "x", config_map(json!({})), |options| {
        options.create_refusal = Some(Box::new(refusal.clone()));
    });
    assert_eq!(refused.await.unwrap_err(), refusal);
    apply_with(&world, "configmaps/a", "x", config_map(json!({})), |options| options.dry_run = true).await.unwrap();
    assert!(world.get("configmaps/a").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn the_annotation_of_client_side_apply_is_kept_as_kubectl_writes_it() {
    let world = World::new().await;
    let mut object = config_map(json!({}));
    object["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": "{}"});
    world.create("configmaps", object).await;
    let applied = apply(&world, "configmaps/a", "kubectl", config_map(json!({"k": "<&>"}))).await.unwrap();
    assert_eq!(
        applied["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"],
        "{\"apiVersion\":\"v1\",\"data\":{\"k\":\"\\u003c\\u0026\\u003e\"},\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"a\"}}\n"
    );
}
