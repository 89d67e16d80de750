//! What a round found in, conditions out.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;

use super::plan::{Found, is_within_grace, status};

fn said(found: &Found) -> Vec<String> {
    let status = status(None, found, Timestamp::UNIX_EPOCH);
    let conditions = status.conditions.unwrap().into_iter();
    conditions
        .map(|condition| {
            format!(
                "{}={} {}: {}",
                condition.type_,
                condition.status,
                condition.reason.unwrap(),
                condition.message.unwrap()
            )
        })
        .collect()
}

#[test]
fn what_remains_and_its_finalizers_are_named_in_kubernetes_words() {
    let found = Found {
        remaining: [("deployments.apps".to_owned(), 1), ("configmaps.".to_owned(), 2)].into(),
        content_failures: vec!["b failed".to_owned(), "a failed".to_owned()],
        finalizers: [("example.com/keep".to_owned(), 1)].into(),
        ..Found::default()
    };
    let said = said(&found);
    assert_eq!(
        said[0],
        "NamespaceDeletionDiscoveryFailure=False ResourcesDiscovered: All resources successfully discovered"
    );
    assert_eq!(
        said[2],
        "NamespaceDeletionContentFailure=True ContentDeletionFailed: Failed to delete all resource types, 2 remaining: \
         a failed, b failed"
    );
    assert_eq!(
        said[3],
        "NamespaceContentRemaining=True SomeResourcesRemain: Some resources are remaining: \
         configmaps. has 2 resource instances, deployments.apps has 1 resource instances"
    );
    assert_eq!(
        said[4],
        "NamespaceFinalizersRemaining=True SomeFinalizersRemain: Some content in the namespace has finalizers \
         remaining: example.com/keep in 1 resource instances"
    );
    assert!(!found.is_empty());
}

#[test]
fn a_condition_keeps_its_time_while_its_status_stays() {
    let remaining = |count| Found { remaining: [("secrets.".to_owned(), count)].into(), ..Found::default() };
    let at = |second| Timestamp::from_second(second).unwrap();
    let first = status(None, &remaining(2), at(10));
    let second = status(Some(&first), &remaining(1), at(20));
    let time = |status: &k8s_openapi::api::core::v1::NamespaceStatus| {
        status.conditions.as_ref().unwrap()[3].last_transition_time.as_ref().unwrap().0.as_second()
    };
    assert_eq!(time(&second), 10);
    let third = status(Some(&second), &Found::default(), at(30));
    assert_eq!(time(&third), 30);
}

#[test]
fn while_pods_end_nothing_else_is_said_to_be_in_the_way() {
    let remaining = [("pods.".to_owned(), 1)].into();
    let found = Found { remaining, only_pods: true, ..Found::default() };
    assert!(said(&found).iter().all(|condition| condition.contains("=False ")));
    assert!(!found.is_empty());
}

#[test]
fn pods_have_the_longest_of_their_grace_periods_from_the_deletion_of_the_namespace() {
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    let namespace = serde_json::from_value(json!({ "metadata": { "deletionTimestamp": at(100) } })).unwrap();
    let pod = |seconds: i64, phase: &str| {
        let value = json!({ "spec": { "containers": [], "terminationGracePeriodSeconds": seconds }, "status": { "phase": phase } });
        Arc::new(serde_json::from_value(value).unwrap())
    };
    let pods = [pod(10, "Running"), pod(30, "Running"), pod(600, "Succeeded")];
    assert!(is_within_grace(&namespace, &pods, at(129)) && !is_within_grace(&namespace, &pods, at(130)));
    assert!(!is_within_grace(&namespace, &[], at(100)));
}
