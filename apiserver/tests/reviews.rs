//! Reviews and other bodies of which nothing is stored, over the network: they pass through what all objects do.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use k8s_pb::api::authorization::v1::SelfSubjectAccessReview;
use k8s_pb::apimachinery::pkg::runtime::{TypeMeta, Unknown};
use prost::Message as _;
use serde_json::{Value, json};
use support::{Cluster, connect};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const ACCESS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Posts a body; the head of the answer, and its body.
async fn post(cluster: &Cluster, path: &str, kind: &str, body: &[u8]) -> (String, Vec<u8>) {
    let mut stream = connect(cluster, Some(cluster.pki.admin()), b"http/1.1").await.unwrap();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: k\r\nUser-Agent: test/1\r\nAccept: {kind}\r\nContent-Type: {kind}\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let at = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    (String::from_utf8(answer[..at].to_vec()).unwrap(), answer[at + 4..].to_vec())
}

/// The same in JSON: the code and the body.
async fn send(cluster: &Cluster, path: &str, body: &Value) -> (u16, String, Value) {
    let (head, answer) = post(cluster, path, "application/json", body.to_string().as_bytes()).await;
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, head, serde_json::from_slice(&answer).unwrap())
}

fn pods() -> Value {
    json!({"verb": "list", "resource": "pods", "namespace": "default"})
}

#[tokio::test]
async fn a_review_has_the_fields_of_its_kind_and_those_who_manage_them() {
    let cluster = Cluster::start().await;
    let typo = json!({"spec": {"resourceAttributes": pods(), "foo": 1}});
    let (code, head, made) = send(&cluster, ACCESS, &typo).await;
    assert_eq!((code, &made["status"]), (201, &json!({"allowed": true})), "{made}");
    assert!(head.contains(r#"warning: 299 - "unknown field \"spec.foo\"""#), "{head}");
    let managed = &made["metadata"]["managedFields"][0];
    assert_eq!((&managed["manager"], &managed["operation"]), (&json!("test"), &json!("Update")));
    let fields = json!({".": {}, "f:namespace": {}, "f:resource": {}, "f:verb": {}});
    assert_eq!(managed["fieldsV1"], json!({"f:spec": {"f:resourceAttributes": fields}}));
    assert!(made["spec"].get("foo").is_none());
    let (code, _, refused) = send(&cluster, &format!("{ACCESS}?fieldValidation=Strict"), &typo).await;
    let why = "SelfSubjectAccessReview in version \"v1\" cannot be handled as a SelfSubjectAccessReview: strict decoding \
               error: unknown field \"spec.foo\"";
    assert_eq!((code, &refused["message"]), (400, &json!(why)));
    let (code, _, refused) = send(&cluster, ACCESS, &json!({"spec": {"resourceAttributes": {"verb": 1}}})).await;
    let why = "SelfSubjectAccessReview in version \"v1\" cannot be handled as a SelfSubjectAccessReview: json: cannot \
               unmarshal number into Go struct field ResourceAttributes.spec.resourceAttributes.verb of type string";
    assert_eq!((code, &refused["message"]), (400, &json!(why)));
    let (code, _, refused) = send(&cluster, ACCESS, &json!([1])).await;
    let why = "the object provided is unrecognized (must be of type SelfSubjectAccessReview): couldn't get version/kind; \
               json parse error: json: cannot unmarshal array into Go value of type struct { APIVersion string \
               \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" } (5b315d)";
    assert_eq!((code, &refused["message"]), (400, &json!(why)));
    let (code, _, refused) = send(&cluster, &format!("{ACCESS}?dryRun=x"), &json!({})).await;
    assert_eq!((code, &refused["details"]["kind"]), (422, &json!("CreateOptions")));
    let (_, _, refused) = send(
        &cluster,
        ACCESS,
        &json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1beta1"}),
    )
    .await;
    let why = "the API version in the data (authorization.k8s.io/v1beta1) does not match the expected API version \
               (authorization.k8s.io/v1)";
    assert_eq!(refused["message"], why);
}

#[tokio::test]
async fn every_rule_that_a_review_breaks_is_told() {
    let cluster = Cluster::start().await;
    let (code, _, refused) = send(&cluster, "/apis/authorization.k8s.io/v1/subjectaccessreviews", &json!({})).await;
    let message = ".authorization.k8s.io \"\" is invalid: [spec.resourceAttributes: Invalid value: null: exactly one of \
                   nonResourceAttributes or resourceAttributes must be specified, spec.user: Invalid value: \"\": at least \
                   one of user or group must be specified]";
    assert_eq!((code, &refused["message"]), (422, &json!(message)));
    let causes: Vec<_> = refused["details"]["causes"].as_array().unwrap().iter().map(|cause| &cause["field"]).collect();
    assert_eq!(causes, ["spec.resourceAttributes", "spec.user"]);
    let mut asked = pods();
    asked["fieldSelector"] = json!({"requirements": [
        {"key": "a", "operator": "Later", "values": ["b"]}, {"key": "a", "operator": "In", "values": ["b"]}]});
    asked["labelSelector"] = json!({"rawSelector": "((("});
    let (code, _, made) = send(&cluster, ACCESS, &json!({"spec": {"resourceAttributes": asked}})).await;
    let error = "spec.resourceAttributes.fieldSelector partially ignored due to parse error; \
                 spec.resourceAttributes.labelSelector ignored due to parse error";
    assert_eq!((code, &made["status"]), (201, &json!({"allowed": true, "evaluationError": error})));
}

#[tokio::test]
async fn who_may_do_what_can_be_asked_of_a_namespace_that_does_not_exist() {
    let cluster = Cluster::start().await;
    let path = "/apis/authorization.k8s.io/v1/namespaces/nowhere/localsubjectaccessreviews";
    let asked = |namespace: &str| json!({"verb": "get", "resource": "pods", "namespace": namespace});
    let review = |namespace: &str| json!({"spec": {"user": "bob", "resourceAttributes": asked(namespace)}});
    let (code, _, made) = send(&cluster, path, &review("nowhere")).await;
    assert_eq!((code, &made["status"]), (201, &json!({"allowed": false})), "{made}");
    let (code, _, refused) = send(&cluster, path, &review("default")).await;
    assert_eq!((code, &refused["details"]["causes"][0]["field"]), (422, &json!("spec.resourceAttributes.namespace")));
}

#[tokio::test]
async fn no_policy_stands_between_a_review_and_its_answer() {
    let cluster = Cluster::start().await;
    let group = "/apis/admissionregistration.k8s.io/v1";
    let all = json!({"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]});
    let spec = json!({"matchConstraints": {"resourceRules": [all]}, "validations": [{"expression": "false"}]});
    let policy = json!({"metadata": {"name": "p"}, "spec": spec});
    send(&cluster, &format!("{group}/validatingadmissionpolicies"), &policy).await;
    let spec = json!({"policyName": "p", "validationActions": ["Deny"]});
    let binding = json!({"metadata": {"name": "p"}, "spec": spec});
    let (code, ..) = send(&cluster, &format!("{group}/validatingadmissionpolicybindings"), &binding).await;
    assert_eq!(code, 201);
    let (code, _, refused) =
        send(&cluster, "/api/v1/namespaces/default/configmaps", &json!({"metadata": {"name": "x"}})).await;
    assert_eq!(code, 422, "{refused}");
    let (code, _, made) = send(&cluster, ACCESS, &json!({"spec": {"resourceAttributes": pods()}})).await;
    assert_eq!((code, &made["status"]), (201, &json!({"allowed": true})), "{made}");
}

#[tokio::test]
async fn a_review_of_oneself_says_nothing_of_what_was_sent() {
    let cluster = Cluster::start().await;
    let body = json!({"metadata": {"name": "x", "labels": {"a": "b"}}});
    let (code, _, made) = send(&cluster, "/apis/authentication.k8s.io/v1/selfsubjectreviews", &body).await;
    let fields: Vec<&str> = made["metadata"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!((code, fields), (201, vec!["creationTimestamp"]));
    assert_eq!(made["status"]["userInfo"]["username"], "kubernetes-admin");
    let rules = json!({"metadata": {"name": "x"}, "spec": {"namespace": "default"}});
    let (_, _, made) = send(&cluster, "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &rules).await;
    assert_eq!((&made["metadata"], &made["spec"]), (&json!({}), &json!({})));
    let (_, _, refused) = send(&cluster, "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &json!({})).await;
    assert_eq!(refused["message"], "no namespace on request");
    let (_, _, refused) = send(&cluster, "/apis/authentication.k8s.io/v1/tokenreviews", &json!({})).await;
    assert_eq!(refused["message"], "token is required for TokenReview in authentication");
}

#[tokio::test]
async fn a_review_is_asked_and_answered_in_protobuf() {
    use k8s_pb::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReviewSpec};
    let cluster = Cluster::start().await;
    let attributes = ResourceAttributes {
        verb: Some("list".to_owned()),
        resource: Some("pods".to_owned()),
        ..ResourceAttributes::default()
    };
    let spec =
        SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..SelfSubjectAccessReviewSpec::default() };
    let review = SelfSubjectAccessReview { spec: Some(spec), ..SelfSubjectAccessReview::default() };
    let kind = TypeMeta {
        api_version: Some("authorization.k8s.io/v1".to_owned()),
        kind: Some("SelfSubjectAccessReview".to_owned()),
    };
    let unknown = Unknown { type_meta: Some(kind), raw: Some(review.encode_to_vec()), ..Unknown::default() };
    let body = [b"k8s\0".as_slice(), &unknown.encode_to_vec()].concat();
    let (head, answer) = post(&cluster, ACCESS, PROTOBUF, &body).await;
    assert!(head.starts_with("HTTP/1.0 201") && head.contains(PROTOBUF), "{head}");
    let made = Unknown::decode(answer.strip_prefix(b"k8s\0").unwrap()).unwrap();
    let made = SelfSubjectAccessReview::decode(made.raw.unwrap().as_slice()).unwrap();
    assert!(made.status.unwrap().allowed() && made.metadata.unwrap().managed_fields.len() == 1);
}

#[tokio::test]
async fn a_token_request_means_the_account_of_its_path() {
    let cluster = Cluster::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let (_, _, account) = send(&cluster, accounts, &json!({"metadata": {"name": "s"}})).await;
    let path = format!("{accounts}/s/token");
    let (code, _, made) = send(&cluster, &path, &json!({"metadata": {"labels": {"a": "b"}}})).await;
    let metadata = &made["metadata"];
    assert_eq!((code, &metadata["uid"], &metadata["labels"]), (201, &account["metadata"]["uid"], &json!({"a": "b"})));
    assert_eq!(metadata["managedFields"][0]["subresource"], "token");
    let spec = json!({"audiences": [support::ISSUER], "expirationSeconds": 3600, "boundObjectRef": null});
    assert_eq!(made["spec"], spec);
    let refused = async |body: Value| {
        let (code, _, refused) = send(&cluster, &path, &body).await;
        format!("{code} {}", refused["message"].as_str().unwrap())
    };
    assert_eq!(
        refused(json!({"metadata": {"name": "q"}})).await,
        "422 TokenRequest.authentication.k8s.io \"s\" is invalid: metadata.name: Invalid value: \"q\": must match the \
         service account name if specified"
    );
    assert!(
        refused(json!({"metadata": {"uid": "q"}}))
            .await
            .starts_with("409 Operation cannot be fulfilled on TokenRequest")
    );
    let other = json!({"spec": {"boundObjectRef": {"kind": "Foo", "apiVersion": "a/v1", "name": "x"}}});
    assert_eq!(refused(other).await, "400 cannot bind token to object of type a/v1, Kind=Foo");
    let mistyped = refused(json!({"spec": {"expirationSeconds": "x"}})).await;
    assert!(mistyped.contains("TokenRequestSpec.spec.expirationSeconds of type int64"), "{mistyped}");
}

#[tokio::test]
async fn a_token_that_is_bound_to_a_node_dies_with_it() {
    let cluster = Cluster::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    send(&cluster, accounts, &json!({"metadata": {"name": "s"}})).await;
    send(&cluster, "/api/v1/nodes", &json!({"metadata": {"name": "n"}})).await;
    let bound = json!({"spec": {"boundObjectRef": {"kind": "Node", "apiVersion": "v1", "name": "n"}}});
    let (code, _, made) = send(&cluster, &format!("{accounts}/s/token"), &bound).await;
    assert_eq!(code, 201, "{made}");
    let review = json!({"spec": {"token": made["status"]["token"]}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let (_, _, alive) = send(&cluster, reviews, &review).await;
    assert_eq!(alive["status"]["user"]["extra"]["authentication.kubernetes.io/node-name"], json!(["n"]), "{alive}");
    let request = "DELETE /api/v1/nodes/n HTTP/1.1\r\nHost: k\r\nConnection: close\r\n\r\n";
    support::raw(&cluster, Some(cluster.pki.admin()), request).await;
    let (_, _, dead) = send(&cluster, reviews, &review).await;
    assert!(dead["status"].get("authenticated").is_none(), "{dead}");
}
