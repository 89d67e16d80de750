//! FlowSchemas and PriorityLevelConfigurations as flow control reads them.
//!
//! What cannot be read is left out, as if the object did not exist: validation has let it pass for another version.

use reeve_kinds::bootstrap;
use serde::Deserialize;
use serde_json::Value;

/// The level that is never limited, and the schema that leads to it.
pub(super) const EXEMPT: &str = "exempt";
/// The level of what no other schema matches, and that schema.
pub(super) const CATCH_ALL: &str = "catch-all";

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: String,
    /// Empty for one that stands in for a missing object.
    #[serde(default)]
    pub(super) uid: String,
}

/// How a level treats requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Never limits any.
    Exempt,
    /// Refuses what finds no seat.
    Reject,
    /// Lets it wait: so many queues, so many of them for one flow, so many requests in each.
    Queue {
        /// Queues of the level.
        queues: u32,
        /// Queues that one flow may use.
        hand: u32,
        /// Requests that may wait in one queue.
        length: usize,
    },
}

/// A PriorityLevelConfiguration.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LevelSpec {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) shape: Shape,
    pub(super) shares: u32,
    /// Percent of its seats that others may use.
    pub(super) lendable: u32,
    /// Percent of its own seats that it may use of others'; `None`: as many as there are.
    pub(super) borrowing: Option<u32>,
}

#[derive(Deserialize)]
struct LevelObject {
    metadata: Metadata,
    spec: LevelObjectSpec,
}

#[derive(Deserialize)]
struct LevelObjectSpec {
    r#type: String,
    limited: Option<Limited>,
    exempt: Option<Exempt>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Limited {
    nominal_concurrency_shares: Option<u32>,
    lendable_percent: Option<u32>,
    borrowing_limit_percent: Option<u32>,
    limit_response: LimitResponse,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Exempt {
    nominal_concurrency_shares: Option<u32>,
    lendable_percent: Option<u32>,
}

#[derive(Deserialize)]
struct LimitResponse {
    r#type: String,
    queuing: Option<Queuing>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Queuing {
    queues: u32,
    hand_size: u32,
    queue_length_limit: usize,
}

impl LevelSpec {
    /// Reads an object; `None` for one that makes no sense.
    pub(super) fn read(object: Value) -> Option<Self> {
        let LevelObject { metadata, spec } = serde_json::from_value(object).ok()?;
        let is_exempt = spec.r#type == "Exempt";
        if is_exempt != (metadata.name == EXEMPT) || is_exempt != spec.exempt.is_some() {
            return None;
        }
        let (shape, shares, lendable, borrowing) = match (spec.limited, spec.exempt) {
            (None, Some(exempt)) => (Shape::Exempt, exempt.nominal_concurrency_shares, exempt.lendable_percent, None),
            (Some(limited), None) => {
                let shares = limited.nominal_concurrency_shares;
                (limited.limit_response.shape()?, shares, limited.lendable_percent, limited.borrowing_limit_percent)
            }
            _ => return None,
        };
        Some(Self {
            name: metadata.name,
            uid: metadata.uid,
            shape,
            shares: shares.unwrap_or(0),
            lendable: lendable.unwrap_or(0),
            borrowing,
        })
    }

    /// The levels that there are even without their objects.
    pub(super) fn mandatory() -> impl Iterator<Item = Self> {
        bootstrap::mandatory_priority_levels().into_iter().filter_map(Self::read)
    }
}

impl LimitResponse {
    fn shape(self) -> Option<Shape> {
        match (self.r#type.as_str(), self.queuing) {
            ("Reject", None) => Some(Shape::Reject),
            ("Queue", Some(queuing)) if queuing.hand_size > 0 && queuing.queues >= queuing.hand_size => {
                Some(Shape::Queue {
                    queues: queuing.queues,
                    hand: queuing.hand_size,
                    length: queuing.queue_length_limit,
                })
            }
            _ => None,
        }
    }
}

/// What makes the flows of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Distinguisher {
    /// All its requests are one flow.
    #[default]
    None,
    /// One flow for each user.
    User,
    /// One for each namespace.
    Namespace,
}

/// A FlowSchema.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SchemaSpec {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) precedence: u32,
    pub(super) level: String,
    pub(super) distinguisher: Distinguisher,
    pub(super) rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct SchemaObject {
    metadata: Metadata,
    spec: SchemaObjectSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SchemaObjectSpec {
    priority_level_configuration: Named,
    matching_precedence: u32,
    distinguisher_method: Option<Method>,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Named {
    pub(super) name: String,
}

#[derive(Deserialize)]
struct Method {
    r#type: String,
}

/// Requests of these subjects that one of these rules names.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rule {
    pub(super) subjects: Vec<Subject>,
    #[serde(default)]
    pub(super) resource_rules: Vec<ResourceRule>,
    #[serde(default)]
    pub(super) non_resource_rules: Vec<PathRule>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Subject {
    pub(super) kind: String,
    pub(super) user: Option<Named>,
    pub(super) group: Option<Named>,
    pub(super) service_account: Option<Account>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Account {
    pub(super) namespace: String,
    pub(super) name: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResourceRule {
    pub(super) verbs: Vec<String>,
    pub(super) api_groups: Vec<String>,
    pub(super) resources: Vec<String>,
    #[serde(default)]
    pub(super) cluster_scope: bool,
    #[serde(default)]
    pub(super) namespaces: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct PathRule {
    pub(super) verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    pub(super) paths: Vec<String>,
}

impl SchemaSpec {
    /// Reads an object; `None` for one that makes no sense.
    pub(super) fn read(object: Value) -> Option<Self> {
        let SchemaObject { metadata, spec } = serde_json::from_value(object).ok()?;
        let distinguisher = match spec.distinguisher_method.as_ref().map(|method| method.r#type.as_str()) {
            None => Distinguisher::None,
            Some("ByUser") => Distinguisher::User,
            Some("ByNamespace") => Distinguisher::Namespace,
            Some(_) => return None,
        };
        Some(Self {
            name: metadata.name,
            uid: metadata.uid,
            precedence: spec.matching_precedence,
            level: spec.priority_level_configuration.name,
            distinguisher,
            rules: spec.rules,
        })
    }

    /// The schemas that there are even without their objects.
    pub(super) fn mandatory() -> impl Iterator<Item = Self> {
        bootstrap::mandatory_flow_schemas().into_iter().filter_map(Self::read)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_built_in_object_is_read() {
        let levels = [bootstrap::mandatory_priority_levels(), bootstrap::suggested_priority_levels()].concat();
        assert!(levels.into_iter().all(|level| LevelSpec::read(level).is_some()));
        let schemas = [bootstrap::mandatory_flow_schemas(), bootstrap::suggested_flow_schemas()].concat();
        assert!(schemas.into_iter().all(|schema| SchemaSpec::read(schema).is_some()));
    }

    #[test]
    fn an_object_that_makes_no_sense_is_as_good_as_none() {
        let level = |name: &str, spec: Value| LevelSpec::read(json!({"metadata": {"name": name}, "spec": spec}));
        let reject = json!({"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}});
        assert_eq!(level("a", reject.clone()).unwrap().shape, Shape::Reject);
        for (name, spec) in [
            ("exempt", reject),
            ("a", json!({"type": "Exempt", "exempt": {}})),
            ("a", json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue"}}})),
            ("a", json!({"type": "Limited"})),
            ("a", Value::Null),
        ] {
            assert_eq!(level(name, spec.clone()), None, "{spec}");
        }
    }
}
