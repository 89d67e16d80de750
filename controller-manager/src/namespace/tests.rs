//! What a round found in, conditions out.

use jiff::Timestamp;

use super::plan::{Found, status};

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
        remaining: [("pods".to_owned(), 1), ("configmaps".to_owned(), 2)].into(),
        finalizers: [("example.com/keep".to_owned(), 1)].into(),
        ..Found::default()
    };
    let said = said(&found);
    assert_eq!(
        said[0],
        "NamespaceDeletionDiscoveryFailure=False ResourcesDiscovered: All resources successfully discovered"
    );
    assert_eq!(
        said[3],
        "NamespaceContentRemaining=True SomeResourcesRemain: Some resources are remaining: \
         configmaps. has 2 resource instances, pods. has 1 resource instances"
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
    let remaining = |count| Found { remaining: [("pods".to_owned(), count)].into(), ..Found::default() };
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
