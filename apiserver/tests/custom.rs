//! Custom resources with the real kubectl, over TLS on loopback: definitions of the shape well-known operators have.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use support::{Cluster, has_kubectl};

/// A definition with versions, conditions as columns, a scale, rules and defaults.
const CERTIFICATES: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: certificates.certs.example.com
spec:
  group: certs.example.com
  scope: Namespaced
  names: {plural: certificates, singular: certificate, kind: Certificate, shortNames: [cert], categories: [certs-example]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.selector}
    additionalPrinterColumns:
    - {name: Ready, type: string, jsonPath: '.status.conditions[?(@.type=="Ready")].status'}
    - {name: Secret, type: string, jsonPath: .spec.secretName}
    - {name: Issuer, type: string, jsonPath: .spec.issuerRef.name, priority: 1}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    selectableFields:
    - jsonPath: .spec.secretName
    schema:
      openAPIV3Schema:
        description: A Certificate is kept up to date and stored in a Secret.
        type: object
        required: [spec]
        properties:
          apiVersion: {type: string}
          kind: {type: string}
          metadata: {type: object}
          spec:
            description: Desired state of the Certificate.
            type: object
            required: [secretName, issuerRef]
            x-kubernetes-validations:
            - {rule: '!has(self.renewBefore) || self.renewBefore <= self.duration', message: renewBefore must not be longer than duration}
            properties:
              secretName: {description: Name of the Secret., type: string, minLength: 1}
              replicas: {type: integer, minimum: 0, default: 1}
              duration: {type: integer, default: 90}
              renewBefore: {type: integer}
              dnsNames: {type: array, x-kubernetes-list-type: set, items: {type: string}}
              issuerRef:
                type: object
                required: [name]
                properties:
                  name: {type: string}
                  kind: {type: string, enum: [Issuer, ClusterIssuer], default: Issuer}
          status:
            type: object
            properties:
              replicas: {type: integer}
              selector: {type: string}
              conditions:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [type]
                items: {type: object, required: [type, status], properties: {type: {type: string}, status: {type: string}}}
"#;

const CERTIFICATE: &str = r"
apiVersion: certs.example.com/v1
kind: Certificate
metadata: {name: web}
spec: {secretName: web-tls, dnsNames: [a.example, b.example], issuerRef: {name: ca}}
";

async fn defined(cluster: &Cluster) {
    let file = cluster.write("crd.yaml", CERTIFICATES);
    let applied = cluster.ok(&["apply", "-f", &file]);
    assert_eq!(applied, "customresourcedefinition.apiextensions.k8s.io/certificates.certs.example.com created\n");
    cluster.ok(&["wait", "--for=condition=Established", "--timeout=20s", "crd/certificates.certs.example.com"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_applied_explained_used_and_deleted() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    defined(&cluster).await;
    let explained = cluster.ok(&["explain", "certificate.spec"]);
    assert!(explained.contains("Desired state of the Certificate.") && explained.contains("-required-"), "{explained}");
    assert!(cluster.ok(&["api-resources", "--api-group=certs.example.com"]).contains("cert "));
    let resources = cluster.ok(&["get", "--raw", "/apis/certs.example.com/v1"]);
    let verbs = r#"["delete","deletecollection","get","list","patch","create","update","watch"]"#;
    assert!(resources.contains(verbs), "{resources}");
    let file = cluster.write("cert.yaml", CERTIFICATE);
    assert_eq!(cluster.ok(&["apply", "-f", &file]), "certificate.certs.example.com/web created\n");
    assert_eq!(cluster.ok(&["apply", "-f", &file]), "certificate.certs.example.com/web unchanged\n");
    let status = r#"{"status":{"conditions":[{"type":"Ready","status":"True"}],"replicas":1,"selector":"app=web"}}"#;
    cluster.ok(&["patch", "cert", "web", "--subresource=status", "--type=merge", "-p", status]);
    let table = cluster.ok(&["get", "cert"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        (&rows[0][..], &rows[1][..3]),
        (&["NAME", "READY", "SECRET", "AGE"][..], &["web", "True", "web-tls"][..])
    );
    assert!(cluster.ok(&["get", "certs-example", "-o", "wide"]).contains("ISSUER"));
    assert!(cluster.ok(&["get", "cert", "--field-selector=spec.secretName=web-tls"]).contains("web"));
    assert!(!cluster.ok(&["get", "cert", "--field-selector=spec.secretName=other"]).contains("web-tls"));
    assert_eq!(cluster.ok(&["scale", "cert/web", "--replicas=3"]), "certificate.certs.example.com/web scaled\n");
    let path = "jsonpath={.spec.replicas} {.spec.duration} {.spec.issuerRef.kind} {.metadata.generation}";
    assert_eq!(cluster.ok(&["get", "cert", "web", "-o", path]), "3 90 Issuer 2");
    let scale = cluster.ok(&["get", "--raw", "/apis/certs.example.com/v1/namespaces/default/certificates/web/scale"]);
    assert!(scale.contains("\"selector\":\"app=web\""), "{scale}");
    assert!(cluster.ok(&["delete", "crd", "certificates.certs.example.com"]).contains("deleted"));
    let gone = cluster.fails(&["get", "--raw", "/apis/certs.example.com/v1/namespaces/default/certificates"]);
    assert!(gone.contains("NotFound"), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_objects_and_definitions_are_refused_with_what_is_wrong() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    defined(&cluster).await;
    let refused = |from: &str, to: &str| {
        let file = cluster.write("bad.yaml", &CERTIFICATE.replace(from, to));
        cluster.fails(&["create", "-f", &file])
    };
    let error = refused("secretName: web-tls", "secretname: x");
    assert!(error.contains("strict decoding error: unknown field \"spec.secretname\""), "{error}");
    let error = refused("secretName: web-tls", "secretName: ''");
    assert!(error.contains("spec.secretName in body should be at least 1 chars long"), "{error}");
    let error = refused("name: ca", "name: ca, kind: Nobody");
    assert!(
        error.contains("Unsupported value: \"Nobody\": supported values: \"Issuer\", \"ClusterIssuer\""),
        "{error}"
    );
    let error = refused("b.example", "a.example");
    assert!(error.contains("spec.dnsNames[1]: Duplicate value: \"a.example\""), "{error}");
    let error = refused("secretName", "renewBefore: 91, secretName");
    assert!(error.contains("spec: Invalid value: renewBefore must not be longer than duration"), "{error}");
    let strategic = r#"{"spec":{"secretName":"x"}}"#;
    let file = cluster.write("cert.yaml", CERTIFICATE);
    cluster.ok(&["create", "-f", &file]);
    let error = cluster.fails(&["patch", "cert", "web", "--type=strategic", "-p", strategic]);
    assert!(error.contains("application/strategic-merge-patch+json is not supported"), "{error}");
    let file = cluster.write("crd.yaml", &CERTIFICATES.replace("x-kubernetes-list-map-keys: [type]", ""));
    let error = cluster.fails(&["apply", "-f", &file]);
    let rule = "x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map";
    assert!(error.contains(rule), "{error}");
    let file = cluster.write("crd.yaml", &CERTIFICATES.replace("kind: Certificate,", "kind: Other,"));
    let error = cluster.fails(&["apply", "-f", &file]);
    assert!(error.contains("spec.names.kind: Invalid value: \"Other\": field is immutable"), "{error}");
}
