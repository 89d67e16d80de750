//! Services as data: defaults, rules, changes, rows.

use serde_json::json;

use crate::kind::{Kind as _, Part};
use crate::testing::*;

fn service(spec: &str) -> String {
    format!("{{apiVersion: v1, kind: Service, metadata: {{name: web, namespace: n}}, spec: {spec}}}")
}

const PLAIN: &str = "{selector: {app: web}, ports: [{port: 80}], clusterIP: 10.0.0.5}";

#[test]
fn a_small_service_gets_kubernetes_defaults() {
    check_created(
        &service(PLAIN),
        "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: n}
spec:
  clusterIP: 10.0.0.5
  clusterIPs: [10.0.0.5]
  internalTrafficPolicy: Cluster
  ports: [{port: 80, protocol: TCP, targetPort: 80}]
  selector: {app: web}
  sessionAffinity: None
  type: ClusterIP
status: {loadBalancer: {}}",
    );
    check_valid(&service(PLAIN));
    let balancer =
        created(&service("{type: LoadBalancer, sessionAffinity: ClientIP, ports: [{port: 80, targetPort: http}]}"));
    assert_eq!(balancer["spec"]["externalTrafficPolicy"], "Cluster");
    assert_eq!(balancer["spec"]["allocateLoadBalancerNodePorts"], true);
    assert_eq!(balancer["spec"]["sessionAffinityConfig"], json!({"clientIP": {"timeoutSeconds": 10800}}));
}

#[test]
fn the_addresses_of_a_balanced_service_are_reached_as_such_unless_it_is_said_otherwise() {
    let ingress = |kind: &str| {
        let mut object = json!({"spec": {"type": kind}, "status": {"loadBalancer": {"ingress": [
            {"ip": "203.0.113.1"}, {"ip": "203.0.113.2", "ipMode": "Proxy"}, {"hostname": "a.b"}]}}});
        super::Services.default(&mut object);
        object["status"]["loadBalancer"]["ingress"].clone()
    };
    assert_eq!(
        ingress("LoadBalancer"),
        json!([{"ip": "203.0.113.1", "ipMode": "VIP"}, {"ip": "203.0.113.2", "ipMode": "Proxy"}, {"hostname": "a.b"}])
    );
    assert_eq!(ingress("NodePort")[0], json!({"ip": "203.0.113.1"}));
}

#[test]
fn names_and_ports_are_checked() {
    check_invalid(
        &service("{}").replace("name: web", "name: Web"),
        &[
            "metadata.name: Invalid value: \"Web\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            "spec.ports: Required value",
        ],
    );
    check_invalid(
        &service("{ports: [{port: 80}, {port: 80, name: a, nodePort: 30000, targetPort: UPPER}]}"),
        &[
            "spec.ports[0].name: Required value",
            "spec.ports[1].targetPort: Invalid value: \"UPPER\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
            "spec.ports[1].targetPort: Invalid value: \"UPPER\": must contain at least one letter (a-z)",
            "spec.ports[1].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
            "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\"TargetPort\":0,\"NodePort\":0}",
        ],
    );
}

#[test]
fn the_type_decides_what_else_may_be_said() {
    check_invalid(
        &service("{type: Magic, ports: [{port: 80}]}"),
        &[
            "spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ],
    );
    check_invalid(&service("{type: ExternalName}"), &["spec.externalName: Required value"]);
    check_invalid(
        &service("{type: NodePort, clusterIP: None, ports: [{port: 80}]}"),
        &["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
    );
    check_invalid(
        &service("{externalTrafficPolicy: Local, ports: [{port: 80}]}"),
        &["spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services"],
    );
    check_valid(&service("{clusterIP: None}"));
}

#[test]
fn an_address_once_given_stays() {
    check_update(
        &service(PLAIN),
        |new| new["spec"]["clusterIP"] = json!("10.0.0.6"),
        &["spec.clusterIPs[0]: Invalid value: [\"10.0.0.6\"]: may not change once set"],
    );
    let (new, errors) = updated(Part::Main, &service(PLAIN), |new| {
        new["spec"].as_object_mut().unwrap().remove("clusterIP");
        new["spec"].as_object_mut().unwrap().remove("clusterIPs");
    });
    assert_eq!((&new["spec"]["clusterIPs"], errors.len()), (&json!(["10.0.0.5"]), 0));
}

#[test]
fn node_ports_are_kept_and_go_with_the_type() {
    let node_port = service("{type: NodePort, clusterIP: 10.0.0.5, ports: [{port: 80, nodePort: 30080}]}");
    let (new, _) =
        updated(Part::Main, &node_port, |new| new["spec"]["ports"] = json!([{"port": 80, "targetPort": 8080}]));
    assert_eq!(new["spec"]["ports"][0]["nodePort"], 30080);
    let (new, errors) = updated(Part::Main, &node_port, |new| new["spec"]["type"] = json!("ClusterIP"));
    assert_eq!((&new["spec"]["ports"][0]["nodePort"], errors), (&json!(null), Vec::<String>::new()));
    let (new, errors) = updated(Part::Main, &node_port, |new| {
        new["spec"]["type"] = json!("ExternalName");
        new["spec"]["externalName"] = json!("example.com");
    });
    assert_eq!((&new["spec"]["clusterIP"], errors), (&json!(null), Vec::<String>::new()));
}

#[test]
fn rows_show_what_kubectl_shows() {
    let row = |spec: &str| row(&format!("{{apiVersion: v1, kind: Service, metadata: {{name: web}}, spec: {spec}}}"));
    assert_eq!(
        row(
            "{type: NodePort, clusterIPs: [10.0.0.5], selector: {app: web, tier: a}, ports: [{port: 80, nodePort: 30080, protocol: TCP}, {port: 53, protocol: UDP}]}"
        ),
        "web | NodePort | 10.0.0.5 | <none> | 80:30080/TCP,53/UDP | <unknown> | app=web,tier=a"
    );
    assert_eq!(row("{type: LoadBalancer}"), "web | LoadBalancer | <none> | <pending> | <none> | <unknown> | <none>");
    assert_eq!(
        row("{type: ExternalName, externalName: x.org}"),
        "web | ExternalName | <none> | x.org | <none> | <unknown> | <none>"
    );
}

#[test]
fn addresses_of_a_service_are_checked() {
    check_invalid(
        "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: n}, spec: {externalIPs: [127.0.0.1, x], loadBalancerSourceRanges: [a], ports: [{port: 80}]}}",
        &[
            "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            "spec.externalIPs[1]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
            "spec.LoadBalancerSourceRanges[0]: Invalid value: \"a\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ],
    );
}

#[test]
fn a_service_of_no_pods_has_a_name_elsewhere() {
    check_invalid(
        "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: n}, spec: {type: ExternalName, externalName: 'A_b', ports: [{port: 80}]}}",
        &[
            "spec.externalName: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ],
    );
    check_invalid(
        "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: n}, spec: {type: ExternalName}}",
        &["spec.externalName: Required value"],
    );
}

#[test]
fn the_policies_of_a_service_are_checked() {
    check_invalid(
        "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: n}, spec: {ports: [{port: 80}], sessionAffinity: Cookie, externalTrafficPolicy: Local, internalTrafficPolicy: Far, healthCheckNodePort: 5, publishNotReadyAddresses: true}}",
        &[
            "spec.sessionAffinity: Unsupported value: \"Cookie\": supported values: \"ClientIP\", \"None\"",
            "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
            "spec.healthCheckNodePort: Invalid value: 5: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
            "spec.internalTrafficPolicy: Unsupported value: \"Far\": supported values: \"Cluster\", \"Local\"",
        ],
    );
    check_invalid(
        "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: n}, spec: {ports: [{port: 80}], sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}, trafficDistribution: Near, type: NodePort, loadBalancerClass: a}}",
        &[
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than 86400",
            "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
            "spec.trafficDistribution: Unsupported value: \"Near\": supported values: \"PreferClose\", \"PreferSameZone\", \"PreferSameNode\"",
        ],
    );
}

#[test]
fn a_name_outside_keeps_no_internal_policy_but_one_that_is_none_is_refused() {
    let outside =
        |policy: &str| service(&format!("{{type: ExternalName, externalName: a.b, internalTrafficPolicy: {policy}}}"));
    assert!(created(&outside("Local"))["spec"].get("internalTrafficPolicy").is_none());
    check_invalid(
        &outside("Odd"),
        &["spec.internalTrafficPolicy: Unsupported value: \"Odd\": supported values: \"Cluster\", \"Local\""],
    );
}
