//! A container's environment: service links, `envFrom`, `env`, in the order and words of the kubelet. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, EnvVarSource, Pod, Secret, Service};

use super::expand::{TooLong, expand};
use super::field::{FieldError, Surroundings, field, resource};
use super::state::spec;

/// Where ConfigMaps and Secrets of the pod's namespace are looked up.
pub(crate) trait Lookup {
    fn config_map(&self, name: &str) -> Option<std::sync::Arc<ConfigMap>>;
    fn secret(&self, name: &str) -> Option<std::sync::Arc<Secret>>;
}

/// Why an environment cannot be made: shown as `CreateContainerConfigError`. The texts are the kubelet's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvError {
    #[error("{kind} \"{name}\" not found")]
    NoObject { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey { key: String, kind: &'static str, namespace: String, name: String },
    #[error("references non-existent environment source in {0}")]
    NoSource(String),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("variable {name:?} is {source}")]
    TooLong {
        name: String,
        #[source]
        source: TooLong,
    },
}

/// The variables of a container, later ones over earlier ones.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    services: &BTreeMap<String, String>,
    objects: &dyn Lookup,
    around: &Surroundings,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut env = services.clone();
    from_sources(pod, container, objects, &mut env)?;
    let mut out: Vec<(String, String)> = Vec::new();
    let mut own: BTreeMap<String, String> = BTreeMap::new();
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (Some(value), _) if !value.is_empty() => {
                let expanded = expand(value, |name| own.get(name).or_else(|| env.get(name)).cloned());
                Some(expanded.map_err(|source| EnvError::TooLong { name: var.name.clone(), source })?)
            }
            (_, Some(source)) => from_source(pod, container, var, source, objects, around)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            own.insert(var.name.clone(), value);
        }
    }
    env.extend(own);
    out.extend(env);
    Ok(out)
}

fn from_sources(
    pod: &Pod,
    container: &Container,
    objects: &dyn Lookup,
    env: &mut BTreeMap<String, String>,
) -> Result<(), EnvError> {
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            match objects.config_map(&reference.name) {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        env.insert(format!("{prefix}{key}"), value.clone());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(no_object("configmap", &reference.name)),
            }
        } else if let Some(reference) = &source.secret_ref {
            match objects.secret(&reference.name) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        env.insert(format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(no_object("secret", &reference.name)),
            }
        } else {
            return Err(EnvError::NoSource(pod.metadata.name.clone().unwrap_or_default()));
        }
    }
    Ok(())
}

fn from_source(
    pod: &Pod,
    container: &Container,
    var: &EnvVar,
    source: &EnvVarSource,
    objects: &dyn Lookup,
    around: &Surroundings,
) -> Result<Option<String>, EnvError> {
    if let Some(selector) = &source.field_ref {
        return Ok(Some(field(pod, selector, around)?));
    }
    if let Some(selector) = &source.resource_field_ref {
        return Ok(Some(resource(pod, Some(&container.name), selector, around)?));
    }
    let (kind, title, selector_name, key, optional) = if let Some(selector) = &source.config_map_key_ref {
        ("configmap", "ConfigMap", &selector.name, &selector.key, selector.optional == Some(true))
    } else if let Some(selector) = &source.secret_key_ref {
        ("secret", "Secret", &selector.name, &selector.key, selector.optional == Some(true))
    } else {
        return Err(EnvError::NoSource(var.name.clone()));
    };
    let value = if kind == "configmap" {
        objects.config_map(selector_name).map(|map| map.data.as_ref().and_then(|data| data.get(key)).cloned())
    } else {
        objects.secret(selector_name).map(|secret| {
            let value = secret.data.as_ref().and_then(|data| data.get(key));
            value.map(|value| String::from_utf8_lossy(&value.0).into_owned())
        })
    };
    match value {
        Some(Some(value)) => Ok(Some(value)),
        _ if optional => Ok(None),
        None => Err(no_object(kind, selector_name)),
        Some(None) => Err(EnvError::NoKey {
            key: key.clone(),
            kind: title,
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: selector_name.clone(),
        }),
    }
}

fn no_object(kind: &'static str, name: &str) -> EnvError {
    EnvError::NoObject { kind, name: name.to_owned() }
}

/// Variables that lead to Services: those of the pod's namespace, if it wants them, and always `KUBERNETES_*`.
/// Source: kubelet `envvars.FromServices`, `getServiceEnvVarMap`.
pub(crate) fn service_links<'s>(pod: &Pod, services: impl Iterator<Item = &'s Service>) -> BTreeMap<String, String> {
    let all = spec(pod).enable_service_links.unwrap_or(true);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut chosen: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let (name, home) = (service.metadata.name.as_deref(), service.metadata.namespace.as_deref());
        let (Some(name), Some(home)) = (name, home) else { continue };
        let master = home == "default" && name == "kubernetes";
        if all && home == namespace {
            chosen.insert(name, service);
        } else if master {
            chosen.entry(name).or_insert(service);
        }
    }
    let mut env = BTreeMap::new();
    for (name, service) in chosen {
        add_links(name, service, &mut env);
    }
    env
}

fn add_links(name: &str, service: &Service, env: &mut BTreeMap<String, String>) {
    let Some(spec) = &service.spec else { return };
    let ip = spec.cluster_ip.as_deref().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first().filter(|_| !ip.is_empty() && ip != "None") else { return };
    let prefix = name.to_ascii_uppercase().replace('-', "_");
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    env.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
    env.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let key = format!("{prefix}_SERVICE_PORT_{}", name.to_ascii_uppercase().replace('-', "_"));
            env.insert(key, port.port.to_string());
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_ascii_lowercase(), port.port);
        if index == 0 {
            env.insert(format!("{prefix}_PORT"), url.clone());
        }
        let port_prefix = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_ascii_uppercase());
        env.insert(format!("{port_prefix}_PROTO"), protocol.to_ascii_lowercase());
        env.insert(format!("{port_prefix}_PORT"), port.port.to_string());
        env.insert(format!("{port_prefix}_ADDR"), ip.to_owned());
        env.insert(port_prefix, url);
    }
}

#[cfg(test)]
#[path = "env_tests.rs"]
mod tests;
