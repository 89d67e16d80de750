//! The component schemas of a document: those of `k8s-openapi`, brought into the form Kubernetes publishes.

use k8s_openapi::api::{
    authentication::v1 as authentication, autoscaling::v1 as autoscaling, core::v1 as core, policy::v1 as policy,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use schemars::JsonSchema;
use schemars::generate::SchemaGenerator;
use serde_json::{Map, Value, json};

use super::{Schemas, enums};
use crate::kind::Names;
use crate::shape::{generator, merge, reference, short_name};

/// Name of the schema of a patch's body.
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// Objects that are only replaced as a whole.
const ATOMIC_STRUCTS: &[&str] = &[
    "ConfigMapKeySelector",
    "CrossVersionObjectReference",
    "EndpointAddress",
    "EndpointPort",
    "FileKeySelector",
    "LabelSelector",
    "LocalObjectReference",
    "MatchResources",
    "NamedRuleWithOperations",
    "NodeSelector",
    "NodeSelectorTerm",
    "ObjectFieldSelector",
    "ObjectReference",
    "OwnerReference",
    "ParamKind",
    "ParamRef",
    "ResourceFieldSelector",
    "RoleRef",
    "ScopeSelector",
    "SecretKeySelector",
    "SecretReference",
    "ServiceBackendPort",
    "TopologySelectorTerm",
    "TypedLocalObjectReference",
    "Variable",
];

/// The same, where a type of another group has the same name.
const ATOMIC_STRUCT: &str = "io.k8s.api.rbac.v1.Subject";

/// Maps that are only replaced as a whole.
const ATOMIC_MAPS: &[(&str, &str)] = &[
    ("PodSpec", "nodeSelector"),
    ("ReplicationControllerSpec", "selector"),
    ("Scheduling", "nodeSelector"),
    ("ServiceSpec", "selector"),
];

/// Maps and objects of which it is said that they are not.
const GRANULAR: &[(&str, &str)] =
    &[("PersistentVolumeClaimStatus", "allocatedResourceStatuses"), ("PersistentVolumeSpec", "claimRef")];

/// Fields that Kubernetes does not ask for, though its Go types write them always.
const NOT_REQUIRED: &[(&str, &str)] = &[
    ("ConfigMapEnvSource", "name"),
    ("ConfigMapKeySelector", "name"),
    ("ConfigMapProjection", "name"),
    ("ConfigMapVolumeSource", "name"),
    ("LocalObjectReference", "name"),
    ("SecretEnvSource", "name"),
    ("SecretKeySelector", "name"),
    ("SecretProjection", "name"),
];

/// The name of a schema, the field that decides which of the others counts (empty: there is none), and the others with
/// what they are called there.
type Union = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// Schemas with fields of which one counts.
const UNIONS: &[Union] = &[
    ("io.k8s.api.core.v1.AppArmorProfile", "type", &[("localhostProfile", "LocalhostProfile")]),
    ("io.k8s.api.core.v1.PodSchedulingGroup", "", &[("podGroupName", "PodGroupName")]),
    ("io.k8s.api.core.v1.SeccompProfile", "type", &[("localhostProfile", "LocalhostProfile")]),
    ("io.k8s.api.flowcontrol.v1.LimitResponse", "type", &[("queuing", "Queuing")]),
    (
        "io.k8s.api.flowcontrol.v1.PriorityLevelConfigurationSpec",
        "type",
        &[("exempt", "Exempt"), ("limited", "Limited")],
    ),
    (
        "io.k8s.api.flowcontrol.v1.Subject",
        "kind",
        &[("group", "Group"), ("serviceAccount", "ServiceAccount"), ("user", "User")],
    ),
];

/// The schemas of one Kubernetes type and of all it is made of.
pub(crate) fn of<T: JsonSchema>() -> Schemas {
    let mut generator = generator();
    generator.subschema_for::<T>();
    Schemas { own: T::schema_name().into_owned(), all: generator.take_definitions(false), complete: false }
}

/// What the operations of every kind refer to.
pub(super) fn shared() -> Map<String, Value> {
    let mut generator = generator();
    subschemas(&mut generator);
    let mut all = generator.take_definitions(false);
    all.insert(
        PATCH.to_owned(),
        json!({
            "description": "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body.",
            "type": "object",
        }),
    );
    for (name, group, version, kind) in [
        ("io.k8s.api.autoscaling.v1.Scale", "autoscaling", "v1", "Scale"),
        ("io.k8s.api.core.v1.Binding", "", "v1", "Binding"),
        ("io.k8s.api.authentication.v1.TokenRequest", "authentication.k8s.io", "v1", "TokenRequest"),
        ("io.k8s.api.policy.v1.Eviction", "policy", "v1", "Eviction"),
        ("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions", "", "v1", "DeleteOptions"),
        ("io.k8s.apimachinery.pkg.apis.meta.v1.Status", "", "v1", "Status"),
    ] {
        if let Some(schema) = all.get_mut(name) {
            schema["x-kubernetes-group-version-kind"] = json!([gvk(group, version, kind)]);
        }
    }
    all
}

fn subschemas(generator: &mut SchemaGenerator) {
    generator.subschema_for::<meta::DeleteOptions>();
    generator.subschema_for::<meta::ListMeta>();
    generator.subschema_for::<meta::Status>();
    generator.subschema_for::<autoscaling::Scale>();
    generator.subschema_for::<core::Binding>();
    generator.subschema_for::<authentication::TokenRequest>();
    generator.subschema_for::<policy::Eviction>();
    generator.subschema_for::<meta::WatchEvent<k8s_openapi::apimachinery::pkg::runtime::RawExtension>>();
}

/// Group, version and kind as extensions show them.
pub(super) fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "kind": kind, "version": version})
}

/// Marks a kind's own schema.
pub(super) fn mark(all: &mut Map<String, Value>, names: &Names, own: &str) {
    if let Some(schema) = all.get_mut(own) {
        schema["x-kubernetes-group-version-kind"] = json!([gvk(names.group, names.version, names.kind)]);
    }
}

/// Marks a kind's own schema and adds that of its lists.
pub(super) fn add_kind(all: &mut Map<String, Value>, names: &Names, own: &str) {
    mark(all, names, own);
    let text = |field: &str| {
        let schema = all.get(own).and_then(|schema| schema.get("properties")?.get(field));
        schema.cloned().unwrap_or_else(|| json!({"type": "string"}))
    };
    let kind = format!("{}List", names.kind);
    let list = json!({
        "description": format!("{kind} is a list of {}.", names.kind),
        "type": "object",
        "properties": {
            "apiVersion": text("apiVersion"),
            "items": {
                "description": format!("List of {}.", names.plural),
                "type": "array",
                "items": {"allOf": [{"$ref": format!("#/components/schemas/{own}")}], "default": {}},
            },
            "kind": text("kind"),
            "metadata": {
                "description": "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
                "allOf": [{"$ref": format!("#/components/schemas/{LIST_META}")}],
                "default": {},
            },
        },
        "required": ["items"],
        "x-kubernetes-group-version-kind": [gvk(names.group, names.version, &kind)],
    });
    all.insert(format!("{own}List"), list);
}

/// Adds what `k8s-openapi`'s schemas lack, and writes references as OpenAPI 3.0 wants them.
pub(super) fn finish(all: &mut Map<String, Value>) {
    for (name, schema) in all.iter_mut() {
        let owner = short_name(name).to_owned();
        match owner.as_str() {
            "Quantity" => either(schema, json!([{"type": "string"}, {"type": "number"}]), None),
            "IntOrString" => {
                either(schema, json!([{"type": "integer"}, {"type": "string"}]), Some("int-or-string"));
            }
            _ => {}
        }
        if ATOMIC_STRUCTS.contains(&owner.as_str()) || name == ATOMIC_STRUCT {
            schema["x-kubernetes-map-type"] = json!("atomic");
        }
        finish_required(name, &owner, schema);
        if let Some((_, discriminator, fields)) = UNIONS.iter().find(|(own, ..)| own == name) {
            let fields: Map<String, Value> =
                fields.iter().map(|(field, own)| ((*field).to_owned(), (*own).into())).collect();
            let mut union = json!({"fields-to-discriminateBy": fields});
            if !discriminator.is_empty() {
                union["discriminator"] = json!(discriminator);
            }
            schema["x-kubernetes-unions"] = json!([union]);
        }
        for (field, property) in schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
            finish_property(&owner, field, property);
        }
    }
}

/// What Kubernetes asks for: `metadata` hardly ever, because an object without it has an empty one.
fn finish_required(name: &str, owner: &str, schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    let Some(required) = fields.get_mut("required").and_then(Value::as_array_mut) else { return };
    let is_asked = |field: &str| match field {
        "metadata" => name == "io.k8s.api.core.v1.Event",
        field => !NOT_REQUIRED.contains(&(owner, field)),
    };
    required.retain(|field| field.as_str().is_some_and(is_asked));
    if name == "io.k8s.api.events.v1.Event" && required.iter().all(|field| field != "eventTime") {
        required.push("eventTime".into());
    }
    if required.is_empty() {
        fields.remove("required");
    }
}

fn either(schema: &mut Value, one_of: Value, format: Option<&str>) {
    let Some(map) = schema.as_object_mut() else { return };
    map.remove("x-kubernetes-int-or-string");
    map.insert("oneOf".to_owned(), one_of);
    if let Some(format) = format {
        map.insert("format".to_owned(), format.into());
    }
}

fn finish_property(owner: &str, field: &str, property: &mut Value) {
    if let Some(items) = property.get_mut("items") {
        wrap_reference(items);
        // Of lists of objects nothing is said.
        if field != "items" || !owner.ends_with("List") {
            list_rules(owner, field, property);
        }
    } else if merge::retains_keys(owner, field) {
        property["x-kubernetes-patch-strategy"] = json!("retainKeys");
    }
    if let Some(values) = enums::values(owner, field) {
        let inner = ["items", "additionalProperties"].into_iter().find(|inner| property.get(inner).is_some());
        let place = if let Some(inner) = inner { &mut property[inner] } else { &mut *property };
        place["enum"] = json!(values);
    }
    if (owner, field) == ("APIServiceSpec", "caBundle") {
        property["x-kubernetes-list-type"] = json!("atomic");
    }
    if GRANULAR.contains(&(owner, field)) {
        property["x-kubernetes-map-type"] = json!("granular");
    }
    if let Some(values) = property.get_mut("additionalProperties") {
        wrap_reference(values);
        if ATOMIC_MAPS.contains(&(owner, field)) {
            property["x-kubernetes-map-type"] = json!("atomic");
        }
    }
    wrap_reference(property);
}

fn list_rules(owner: &str, field: &str, property: &mut Value) {
    let rule = merge::list(owner, field);
    property["x-kubernetes-list-type"] = json!(rule.list_type);
    if !rule.map_keys.is_empty() {
        property["x-kubernetes-list-map-keys"] = json!(rule.map_keys);
    }
    if let Some(key) = rule.merge_key {
        property["x-kubernetes-patch-merge-key"] = json!(key);
    }
    if rule.merge_key.is_some() || rule.merge_set {
        let strategy = if merge::retains_keys(owner, field) { "merge,retainKeys" } else { "merge" };
        property["x-kubernetes-patch-strategy"] = json!(strategy);
    }
}

/// In OpenAPI 3.0 a reference has no siblings: it goes into `allOf`.
fn wrap_reference(schema: &mut Value) {
    let is_meta = reference(schema).is_some_and(|name| short_name(name) == "ObjectMeta");
    let Some(map) = schema.as_object_mut() else { return };
    let Some(target) = map.remove("$ref") else { return };
    map.insert("allOf".to_owned(), json!([{"$ref": target}]));
    if is_meta {
        map.insert("default".to_owned(), json!({}));
    }
}
