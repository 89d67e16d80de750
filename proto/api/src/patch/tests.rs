//! Patches as tables: document, patch, outcome.

use serde_json::{Value, json};

use super::*;

/// Containers merge by name with environment by name, finalizers as a set, `strategy` retains keys.
struct PodLike;
struct ContainerLike;
struct EnvLike;

impl PatchSchema for PodLike {
    fn field(&self, field: &str) -> Option<FieldStrategy<'_>> {
        Some(match field {
            "containers" => FieldStrategy {
                list: ListStrategy::MergeByKey("name"),
                retain_keys: false,
                schema: Some(&ContainerLike),
            },
            "finalizers" => FieldStrategy { list: ListStrategy::MergeAsSet, ..FieldStrategy::UNKNOWN },
            "strategy" => FieldStrategy { retain_keys: true, ..FieldStrategy::UNKNOWN },
            "spec" => FieldStrategy { schema: Some(&PodLike), ..FieldStrategy::UNKNOWN },
            _ => return None,
        })
    }
}

impl PatchSchema for ContainerLike {
    fn field(&self, field: &str) -> Option<FieldStrategy<'_>> {
        (field == "env").then_some(FieldStrategy {
            list: ListStrategy::MergeByKey("name"),
            retain_keys: false,
            schema: Some(&EnvLike),
        })
    }
}

impl PatchSchema for EnvLike {
    fn field(&self, _field: &str) -> Option<FieldStrategy<'_>> {
        None
    }
}

#[track_caller]
fn check(original: Value, patch: &Value, expected: &Value) {
    let mut merged = original;
    strategic_merge(&mut merged, patch, &PodLike).expect("patch applies");
    assert_eq!(&merged, expected);
}

#[test]
fn lists_with_a_merge_key_merge_item_by_item() {
    check(
        json!({"containers": [{"name": "a", "image": "x:1", "env": [{"name": "K", "value": "1"}]}, {"name": "b"}]}),
        &json!({"containers": [{"name": "a", "env": [{"name": "L", "value": "2"}]}, {"name": "c", "image": "z"}]}),
        &json!({"containers": [
            {"name": "a", "image": "x:1", "env": [{"name": "L", "value": "2"}, {"name": "K", "value": "1"}]},
            {"name": "c", "image": "z"}, {"name": "b"}]}),
    );
}

#[test]
fn directives_delete_and_replace_items_and_are_never_stored() {
    let original = || json!({"containers": [{"name": "a"}, {"name": "b"}], "m": {"x": 1, "y": 2}});
    check(
        original(),
        &json!({"containers": [{"name": "a", "$patch": "delete"}]}),
        &json!({"containers": [{"name": "b"}], "m": {"x": 1, "y": 2}}),
    );
    check(
        original(),
        &json!({"containers": [{"name": "c"}, {"$patch": "replace"}], "m": {"$patch": "replace", "z": 3}}),
        &json!({"containers": [{"name": "c"}], "m": {"z": 3}}),
    );
    check(json!({}), &json!({"m": {"$patch": "delete"}, "n": {"a": null, "b": {"c": null}}}), &json!({"n": {"b": {}}}));
}

#[test]
fn lists_of_plain_values_merge_as_sets_and_lose_what_is_named() {
    check(
        json!({"finalizers": ["a", "b"]}),
        &json!({"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"]}),
        &json!({"finalizers": ["c", "b"]}),
    );
}

#[test]
fn retain_keys_drops_what_is_not_listed_and_refuses_contradictions() {
    check(
        json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}),
        &json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}),
        &json!({"strategy": {"type": "Recreate"}}),
    );
    let mut object = json!({"strategy": {}});
    let refused = strategic_merge(&mut object, &json!({"strategy": {"$retainKeys": ["type"], "other": 1}}), &PodLike);
    assert!(matches!(refused, Err(PatchError::BadRetainKeys)));
}

#[test]
fn element_order_is_the_patchs_and_server_items_keep_their_place() {
    check(
        json!({"containers": [{"name": "a"}, {"name": "sidecar"}, {"name": "b"}]}),
        &json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "b", "image": "i"}]}),
        &json!({"containers": [{"name": "sidecar"}, {"name": "b", "image": "i"}, {"name": "a"}]}),
    );
}

#[test]
fn an_item_without_its_merge_key_is_refused_in_kubernetes_words() {
    let mut object = json!({"containers": [{"name": "a"}]});
    let refused = strategic_merge(&mut object, &json!({"containers": [{"image": "x"}]}), &PodLike);
    assert_eq!(
        refused.expect_err("no name").to_string(),
        "map: map[image:x] does not contain declared merge key: name"
    );
}

#[test]
fn an_unknown_directive_is_refused() {
    let mut object = json!({"m": {}});
    assert!(strategic_merge(&mut object, &json!({"m": {"$patch": "explode"}}), &PodLike).is_err());
}

#[test]
fn a_merge_patch_merges_objects_and_null_removes() {
    let mut object = json!({"a": {"b": 1, "c": [1, 2]}, "d": 1});
    merge_patch(&mut object, &json!({"a": {"b": null, "c": [3]}, "d": {"e": {"f": null}}}));
    assert_eq!(object, json!({"a": {"c": [3]}, "d": {"e": {}}}));
}

#[track_caller]
fn check_three_way(original: &Value, modified: &Value, current: &Value, patch: &Value, outcome: &Value) {
    let made = create_three_way(original, modified, current, &PodLike).expect("patch can be made");
    assert_eq!(&made, patch);
    let mut applied = current.clone();
    strategic_merge(&mut applied, &made, &PodLike).expect("patch applies");
    assert_eq!(&applied, outcome);
}

#[test]
fn apply_changes_what_differs_deletes_what_was_applied_and_leaves_the_rest() {
    check_three_way(
        &json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}], "gone": 1}}),
        &json!({"spec": {"containers": [{"name": "a", "image": "2"}]}}),
        &json!({"spec": {"containers": [
            {"name": "a", "image": "1", "policy": "Always"}, {"name": "b", "image": "1"}, {"name": "injected"}],
            "gone": 1, "server": true}}),
        &json!({"spec": {
            "containers": [{"name": "a", "image": "2"}, {"name": "b", "$patch": "delete"}],
            "$setElementOrder/containers": [{"name": "a"}], "gone": null}}),
        &json!({"spec": {"containers": [{"name": "a", "image": "2", "policy": "Always"}, {"name": "injected"}], "server": true}}),
    );
}

#[test]
fn applying_the_same_again_makes_an_empty_patch() {
    let applied = json!({"spec": {"containers": [{"name": "a"}], "finalizers": ["f"]}});
    let current =
        json!({"spec": {"containers": [{"name": "a", "image": "x"}], "finalizers": ["f", "g"]}, "status": {}});
    let patch = create_three_way(&applied, &applied, &current, &PodLike).expect("patch can be made");
    assert_eq!(patch, json!({}));
}

#[test]
fn a_field_removed_from_an_item_and_one_added_to_it_meet_in_one_patch_item() {
    check_three_way(
        &json!({"containers": [{"name": "a", "old": 1}]}),
        &json!({"containers": [{"name": "a", "new": 2}]}),
        &json!({"containers": [{"name": "a", "old": 1}]}),
        &json!({"containers": [{"name": "a", "old": null, "new": 2}], "$setElementOrder/containers": [{"name": "a"}]}),
        &json!({"containers": [{"name": "a", "new": 2}]}),
    );
}

#[test]
fn retain_keys_travels_with_a_changed_strategy() {
    let patch = create_two_way(
        &json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {}}}),
        &json!({"strategy": {"type": "Recreate"}}),
        &PodLike,
    );
    assert_eq!(
        patch.expect("patch can be made"),
        json!({"strategy": {"type": "Recreate", "rollingUpdate": null, "$retainKeys": ["type"]}})
    );
}

#[test]
fn a_three_way_json_patch_replaces_lists_and_deletes_what_was_applied() {
    let patch = create_three_way_json(
        &json!({"a": 1, "m": {"x": 1}}),
        &json!({"m": {}, "l": [1]}),
        &json!({"a": 1, "m": {"x": 1, "live": 2}, "l": [2]}),
    );
    assert_eq!(patch, json!({"a": null, "m": {"x": null}, "l": [1]}));
}

/// The server takes patches of megabytes; the time must not grow with the square of their lists.
#[test]
fn a_patch_of_long_lists_is_applied_in_a_moment() {
    const COUNT: usize = 40_000;
    let containers = |image: &str| -> Vec<Value> {
        (0..COUNT).map(|index| json!({"name": format!("c{index}"), "image": image})).collect()
    };
    let texts: Vec<String> = (0..COUNT).map(|index| format!("example.com/f{index}")).collect();
    let names = |item: &Value| json!({"name": item["name"]});
    let order: Vec<Value> = containers("").iter().rev().map(names).collect();
    let gone: Vec<Value> = (0..10).map(|index| json!({"name": format!("c{index}"), "$patch": "delete"})).collect();
    let mut changed = containers("b").split_off(10);
    changed.reverse();
    let changed = [changed, gone].concat();
    let original = json!({"containers": containers("a"), "finalizers": texts});
    let patch = json!({
        "containers": changed, "$setElementOrder/containers": order,
        "finalizers": texts, "$deleteFromPrimitiveList/finalizers": texts[1..],
    });
    // Off this thread: the square of these lengths would take minutes.
    let (done, merged) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut merged = original;
        strategic_merge(&mut merged, &patch, &PodLike).unwrap();
        done.send(merged)
    });
    let merged = merged.recv_timeout(std::time::Duration::from_secs(30)).expect("it takes a moment");
    let containers = merged["containers"].as_array().unwrap();
    assert_eq!(containers.len(), COUNT - 10);
    assert_eq!(containers[0], json!({"name": format!("c{}", COUNT - 1), "image": "b"}));
    assert_eq!(merged["finalizers"], json!(["example.com/f0"]));
}

/// What Kubernetes says to directives that make no sense, and where items go that nobody has ordered.
#[test]
fn items_that_are_new_come_first_and_directives_out_of_place_are_told_in_kubernetes_words() {
    let three = || json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}], "finalizers": ["x"]});
    check(
        three(),
        &json!({"containers": [{"name": "n"}, {"name": "b", "image": "y"}]}),
        &json!({"containers": [{"name": "n"}, {"name": "a"}, {"name": "b", "image": "y"}, {"name": "c"}],
            "finalizers": ["x"]}),
    );
    check(
        three(),
        &json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]}),
        &json!({"containers": [{"name": "b"}, {"name": "c"}, {"name": "a"}], "finalizers": ["x"]}),
    );
    check(
        three(),
        &json!({"finalizers": ["y"]}),
        &json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}], "finalizers": ["y", "x"]}),
    );
    let refused = |patch: Value| strategic_merge(&mut three(), &patch, &PodLike).unwrap_err().to_string();
    let cases = [
        (
            json!({"containers": [{"name": "a", "$patch": "merge"}]}),
            "merging lists cannot yet be specified in the patch",
        ),
        (json!({"containers": [{"name": "a", "$patch": "x"}]}), "unknown patch type: x in map: map[$patch:x name:a]"),
        (json!({"m": 1, "$patch": 1}), "unknown patch type: %!s(int64=1) in map: map[$patch:1 m:1]"),
        (json!({"$retainKeys": "x"}), "invalid patch format of retainKeys"),
        (json!({"$setElementOrder/containers": "x"}), "expected a []interface {}, but received a string"),
        (
            json!({"$setElementOrder/containers": [{"x": "c"}]}),
            "map: map[x:c] does not contain declared merge key: name",
        ),
        (
            json!({"$setElementOrder/finalizers": ["b", "a"], "finalizers": ["a", "b"]}),
            "The order in patch list:\n[a b]\n doesn't match $setElementOrder list:\n[b a]\n",
        ),
        (
            json!({"containers": ["a"]}),
            "list element types are not identical: [[map[name:a] map[name:b] map[name:c]] [a]]",
        ),
    ];
    for (patch, wanted) in cases {
        assert_eq!(refused(patch), wanted);
    }
}

#[test]
fn what_was_not_there_is_taken_as_it_comes_whether_its_items_have_their_keys_or_not() {
    check(json!({}), &json!({"containers": [{"image": "x"}]}), &json!({"containers": [{"image": "x"}]}));
    check(
        json!({}),
        &json!({"m": {"a": null, "b": [{"c": null}], "d": {"$patch": "replace", "e": 1}}}),
        &json!({"m": {"b": [{}]}}),
    );
    check(json!({"m": 1}), &json!({"m": {"$patch": "replace", "a": 1}}), &json!({}));
    check(
        json!({"containers": [{"name": "a"}]}),
        &json!({"containers": [{"name": "b", "env": [{"value": "v"}]}]}),
        &json!({"containers": [{"name": "b", "env": [{"value": "v"}]}, {"name": "a"}]}),
    );
}
