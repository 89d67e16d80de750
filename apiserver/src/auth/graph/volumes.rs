//! PersistentVolumes: which claim each is bound to, and which Secrets a node needs to mount it.
//!
//! Source: `AddPV` of Kubernetes' Node authorizer and `VisitPVSecretNames`, as far as that is for the kubelet.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use imbl::OrdMap;
use serde::Deserialize;

use crate::registry::Object;

/// All volumes that are bound to a claim.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    /// By name.
    bound: HashMap<Bytes, Volume>,
    /// The names of the volumes that need a Secret (`NAMESPACE/NAME`).
    by_secret: HashMap<Box<str>, HashSet<Bytes>>,
}

/// A volume that is bound. Both are `NAMESPACE/NAME`.
#[derive(Debug, PartialEq, Eq)]
struct Volume {
    claim: Box<str>,
    secrets: Vec<Box<str>>,
}

impl Volumes {
    /// The claim that a volume is bound to.
    pub(super) fn claim(&self, name: &str) -> Option<&str> {
        self.bound.get(name.as_bytes()).map(|volume| &*volume.claim)
    }

    /// The claims of the volumes that need a Secret.
    pub(super) fn claims_of(&self, secret: &str) -> impl Iterator<Item = &str> {
        let names = self.by_secret.get(secret).into_iter().flatten();
        names.filter_map(|name| self.bound.get(name)).map(|volume| &*volume.claim)
    }

    pub(super) fn put(&mut self, name: &Bytes, now: Option<&Object>) {
        let now = now.and_then(Volume::read);
        if self.bound.get(name) == now.as_ref() {
            return;
        }
        if let Some(old) = self.bound.remove(name) {
            for secret in &old.secrets {
                let Some(names) = self.by_secret.get_mut(secret) else { continue };
                names.remove(name);
                if names.is_empty() {
                    self.by_secret.remove(secret);
                }
            }
        }
        if let Some(volume) = now {
            for secret in &volume.secrets {
                self.by_secret.entry(secret.clone()).or_default().insert(name.clone());
            }
            self.bound.insert(name.clone(), volume);
        }
    }

    pub(super) fn of(objects: &OrdMap<Bytes, Object>) -> Self {
        let mut fresh = Self::default();
        objects.iter().for_each(|(name, object)| fresh.put(name, Some(object)));
        fresh
    }
}

impl Volume {
    /// `None` for a volume that is bound to no claim.
    fn read(object: &Object) -> Option<Self> {
        let spec = serde_json::from_slice::<VolumeText>(object.text()).ok()?.spec;
        let claim = spec.claim_ref?;
        let (namespace, name) = (claim.namespace.as_deref()?, claim.name.as_deref()?);
        let mut secrets: Vec<Box<str>> = Vec::new();
        let mut add = |reference: &Reference, default: &str| {
            let own = reference.namespace.as_deref().filter(|own| !own.is_empty()).unwrap_or(default);
            if let Some(name) = reference.name.as_deref().filter(|name| !name.is_empty()) {
                secrets.push(format!("{own}/{name}").into());
            }
        };
        // Old objects of these kinds name no namespace: that of the claim is meant.
        for source in [&spec.cephfs, &spec.flex_volume, &spec.rbd, &spec.scale_io, &spec.iscsi].into_iter().flatten() {
            source.secret_ref.iter().for_each(|reference| add(reference, namespace));
        }
        for source in [&spec.cinder, &spec.storageos].into_iter().flatten() {
            source.secret_ref.iter().for_each(|reference| add(reference, ""));
        }
        if let Some(csi) = &spec.csi {
            let references = [&csi.node_publish_secret_ref, &csi.node_stage_secret_ref, &csi.node_expand_secret_ref];
            references.into_iter().flatten().for_each(|reference| add(reference, ""));
        }
        if let Some(azure) = spec.azure_file {
            add(&Reference { namespace: azure.secret_namespace, name: azure.secret_name }, namespace);
        }
        Some(Self { claim: format!("{namespace}/{name}").into(), secrets })
    }
}

/// The part of a volume that holds references; the rest is passed over unread.
#[derive(Deserialize)]
struct VolumeText {
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    claim_ref: Option<Reference>,
    azure_file: Option<AzureFile>,
    cephfs: Option<WithSecret>,
    cinder: Option<WithSecret>,
    flex_volume: Option<WithSecret>,
    rbd: Option<WithSecret>,
    #[serde(rename = "scaleIO")]
    scale_io: Option<WithSecret>,
    iscsi: Option<WithSecret>,
    storageos: Option<WithSecret>,
    csi: Option<Csi>,
}

#[derive(Deserialize)]
struct Reference {
    namespace: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AzureFile {
    secret_name: Option<String>,
    secret_namespace: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WithSecret {
    secret_ref: Option<Reference>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Csi {
    node_publish_secret_ref: Option<Reference>,
    node_stage_secret_ref: Option<Reference>,
    node_expand_secret_ref: Option<Reference>,
}
