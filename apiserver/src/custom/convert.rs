//! Objects of a custom resource from one version into another.

use std::sync::Arc;

use async_trait::async_trait;
use reeve_kinds::Kind;
use serde_json::Value;

use super::offer::Versions;
use super::review;
use super::webhook::{Target, Webhooks};
use crate::registry::Convert;
use crate::status::ApiError;

/// How a definition says that its versions differ.
enum Strategy {
    /// In nothing but their name.
    None,
    /// As a webhook says.
    Webhook(Box<Target>),
}

/// Goes between the versions of one definition.
pub(super) struct Converter {
    group: String,
    kind: String,
    stored: String,
    strategy: Strategy,
    versions: Versions,
    webhooks: Arc<Webhooks>,
}

impl Converter {
    pub(super) fn new(spec: &Value, versions: Versions, webhooks: Arc<Webhooks>) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = spec["versions"].as_array().into_iter().flatten();
        let stored = all.into_iter().find(|version| version["storage"] == true).map(|version| text(&version["name"]));
        let conversion = &spec["conversion"];
        let strategy = match conversion["strategy"].as_str() {
            Some("Webhook") => Strategy::Webhook(Box::new(Target::of(&conversion["webhook"], &webhooks))),
            _ => Strategy::None,
        };
        let (group, kind) = (text(&spec["group"]), text(&spec["names"]["kind"]));
        Self { group, kind, stored: stored.unwrap_or_default(), strategy, versions, webhooks }
    }

    async fn ask(&self, target: &Target, objects: Vec<Value>, wanted: &str) -> Result<Vec<Value>, ApiError> {
        let shown = format!("{}, Kind={}", objects[0]["apiVersion"].as_str().unwrap_or_default(), self.kind);
        let failed = |why: String| ApiError::internal(format!("conversion webhook for {shown} failed: {why}"));
        let (uid, review) = review::request(&objects, wanted, &target.review_versions, &self.webhooks.new_uid())
            .map_err(|why| ApiError::internal(&why))?;
        let answer = self.webhooks.post(target, &review).await.map_err(failed)?;
        let converted = review::converted(&answer, &uid).map_err(failed)?;
        if converted.len() != objects.len() {
            let (got, expected) = (converted.len(), objects.len());
            let why = format!("conversion webhook for {shown} returned {got} objects, expected {expected}");
            return Err(ApiError::internal(why));
        }
        let pairs = objects.iter().zip(converted).enumerate();
        let checked = pairs.map(|(index, (original, converted))| {
            review::restore(original, converted, wanted).map_err(|why| {
                let place =
                    if objects.len() > 1 { format!("converted object at index {index}") } else { "object".into() };
                ApiError::internal(format!("conversion webhook for {shown} returned invalid {place}: {why}"))
            })
        });
        checked.collect()
    }
}

impl Converter {
    /// Leaves of a converted object what its version has.
    fn trim(&self, object: &mut Value, version: &str) {
        if let Some(kind) = self.versions.get(version) {
            kind.trim(object);
        }
    }
}

#[async_trait]
impl Convert for Converter {
    fn kinds_at_once(&self) -> Vec<Arc<dyn Kind>> {
        match self.strategy {
            Strategy::None => self.versions.values().map(|kind| Arc::clone(kind) as Arc<dyn Kind>).collect(),
            Strategy::Webhook(_) => Vec::new(),
        }
    }

    fn convert_at_once(&self, mut object: Value, version: &str) -> Option<Value> {
        if !matches!(self.strategy, Strategy::None) {
            return None;
        }
        object["apiVersion"] = format!("{}/{version}", self.group).into();
        self.trim(&mut object, version);
        Some(object)
    }

    async fn convert(&self, mut objects: Vec<Value>, version: &str) -> Result<Vec<Value>, ApiError> {
        let wanted = format!("{}/{version}", self.group);
        let foreign: Vec<usize> =
            (0..objects.len()).filter(|index| objects[*index]["apiVersion"].as_str() != Some(&wanted)).collect();
        if foreign.is_empty() {
            return Ok(objects);
        }
        match &self.strategy {
            Strategy::None => {
                for index in &foreign {
                    objects[*index]["apiVersion"] = wanted.as_str().into();
                }
            }
            Strategy::Webhook(target) => {
                let asked = foreign.iter().map(|index| objects[*index].take()).collect();
                for (index, converted) in foreign.iter().zip(self.ask(target, asked, &wanted).await?) {
                    objects[*index] = converted;
                }
            }
        }
        foreign.iter().for_each(|index| self.trim(&mut objects[*index], version));
        Ok(objects)
    }

    fn stored_version(&self) -> &str {
        &self.stored
    }

    fn as_read(&self, object: &mut Value) {
        if let Some(kind) = self.versions.get(&self.stored) {
            kind.read_stored(object);
        }
    }

    fn changes_fields(&self) -> bool {
        matches!(self.strategy, Strategy::Webhook(_))
    }
}
