//! The content of configMap, secret, downwardAPI and projected volumes. No I/O: objects in, files out.

use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, Volume};

use super::atomic::{File, Files};
use super::{SetUpError, Tokens, VolumeInputs};
use crate::pod::env::Lookup as _;
use crate::pod::field;
use crate::pod::state::{containers, spec};

/// Permission bits of files when nobody says otherwise. Source: Kubernetes `SecretVolumeSourceDefaultMode`.
const DEFAULT_MODE: i32 = 0o644;

/// The folder name of a volume of this sort; `None` for every other.
pub(crate) fn kind(volume: &Volume) -> Option<&'static str> {
    if volume.config_map.is_some() {
        Some("configmap")
    } else if volume.secret.is_some() {
        Some("secret")
    } else if volume.downward_api.is_some() {
        Some("downward-api")
    } else if volume.projected.is_some() {
        Some("projected")
    } else {
        None
    }
}

/// All files of a volume.
pub(crate) fn files(volume: &Volume, inputs: &VolumeInputs, tokens: &Tokens) -> Result<Files, SetUpError> {
    let mut files = Files::new();
    if let Some(source) = &volume.config_map {
        let (mode, optional) = (source.default_mode, source.optional == Some(true));
        config_map(inputs, Keys { name: &source.name, items: source.items.as_deref(), optional, mode }, &mut files)?;
    } else if let Some(source) = &volume.secret {
        let (mode, optional) = (source.default_mode, source.optional == Some(true));
        let name = source.secret_name.as_deref().unwrap_or_default();
        secret(inputs, Keys { name, items: source.items.as_deref(), optional, mode }, &mut files)?;
    } else if let Some(source) = &volume.downward_api {
        downward(inputs, source.items.as_deref().unwrap_or_default(), source.default_mode, &mut files)?;
    } else if volume.projected.is_some() {
        projected(volume, inputs, tokens, &mut files)?;
    }
    Ok(files)
}

fn projected(volume: &Volume, inputs: &VolumeInputs, tokens: &Tokens, files: &mut Files) -> Result<(), SetUpError> {
    let Some(projected) = &volume.projected else { return Ok(()) };
    let mode = projected.default_mode;
    for source in projected.sources.iter().flatten() {
        if let Some(map) = &source.config_map {
            let optional = map.optional == Some(true);
            config_map(inputs, Keys { name: &map.name, items: map.items.as_deref(), optional, mode }, files)?;
        } else if let Some(from) = &source.secret {
            let optional = from.optional == Some(true);
            secret(inputs, Keys { name: &from.name, items: from.items.as_deref(), optional, mode }, files)?;
        } else if let Some(from) = &source.downward_api {
            downward(inputs, from.items.as_deref().unwrap_or_default(), mode, files)?;
        } else if let Some(from) = &source.service_account_token {
            let token = tokens.get(&(volume.name.clone(), from.path.clone()));
            let token = token.ok_or_else(|| SetUpError::Token("no token was issued".to_owned()))?;
            files.insert(from.path.clone(), token_file(&inputs.pod, token, mode));
        } else {
            return Err(SetUpError::Unsupported("projected from this source"));
        }
    }
    Ok(())
}

/// A token is for its reader only where all containers are one user. Source: kubelet projected volume.
fn token_file(pod: &Pod, token: &str, mode: Option<i32>) -> File {
    let shared = spec(pod).security_context.clone().unwrap_or_default();
    let mut users = containers(spec(pod)).map(|(container, _)| {
        let own = container.security_context.as_ref().and_then(|context| context.run_as_user);
        own.or(shared.run_as_user).and_then(|user| u32::try_from(user).ok())
    });
    let first = users.next().flatten();
    let owner = first.filter(|_| users.all(|user| user == first));
    let bytes = token.as_bytes().to_vec();
    // The group may read it too where the pod has one of its own: that is added to the mode later.
    let is_private = shared.fs_group.is_some() || owner.is_some();
    File { bytes, mode: if is_private { 0o600 } else { bits(mode) }, owner }
}

/// What of an object goes into a volume.
#[derive(Clone, Copy)]
struct Keys<'v> {
    name: &'v str,
    items: Option<&'v [KeyToPath]>,
    optional: bool,
    mode: Option<i32>,
}

fn config_map(inputs: &VolumeInputs, keys: Keys<'_>, files: &mut Files) -> Result<(), SetUpError> {
    let found = inputs.objects.config_map(keys.name);
    from_config_map(found.as_deref(), &keys, files)
}

fn from_config_map(found: Option<&ConfigMap>, keys: &Keys<'_>, files: &mut Files) -> Result<(), SetUpError> {
    let Some(map) = found else { return missing("configmap", keys) };
    let text = map.data.iter().flatten().map(|(key, value)| (key, value.as_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(key, value)| (key, value.0.as_slice()));
    pick("config", text.chain(binary).collect(), keys, files)
}

fn secret(inputs: &VolumeInputs, keys: Keys<'_>, files: &mut Files) -> Result<(), SetUpError> {
    let found = inputs.objects.secret(keys.name);
    from_secret(found.as_deref(), &keys, files)
}

fn from_secret(found: Option<&Secret>, keys: &Keys<'_>, files: &mut Files) -> Result<(), SetUpError> {
    let Some(secret) = found else { return missing("secret", keys) };
    let data = secret.data.iter().flatten().map(|(key, value)| (key, value.0.as_slice())).collect();
    pick("secret", data, keys, files)
}

fn missing(kind: &'static str, keys: &Keys<'_>) -> Result<(), SetUpError> {
    if keys.optional { Ok(()) } else { Err(SetUpError::NoObject { kind, name: keys.name.to_owned() }) }
}

fn pick(
    kind: &'static str,
    data: std::collections::BTreeMap<&String, &[u8]>,
    keys: &Keys<'_>,
    files: &mut Files,
) -> Result<(), SetUpError> {
    let file = |bytes: &[u8], mode: Option<i32>| File { bytes: bytes.to_vec(), mode: bits(mode), owner: None };
    let Some(items) = keys.items.filter(|items| !items.is_empty()) else {
        files.extend(data.into_iter().map(|(key, bytes)| (key.clone(), file(bytes, keys.mode))));
        return Ok(());
    };
    for item in items {
        match data.get(&item.key) {
            Some(bytes) => {
                files.insert(item.path.clone(), file(bytes, item.mode.or(keys.mode)));
            }
            None if keys.optional => {}
            None => return Err(SetUpError::NoKey { kind, key: item.key.clone() }),
        }
    }
    Ok(())
}

fn downward(
    inputs: &VolumeInputs,
    items: &[DownwardAPIVolumeFile],
    default_mode: Option<i32>,
    files: &mut Files,
) -> Result<(), SetUpError> {
    for item in items {
        let text = if let Some(selector) = &item.field_ref {
            field::field(&inputs.pod, selector, &inputs.around)?
        } else if let Some(selector) = &item.resource_field_ref {
            field::resource(&inputs.pod, None, selector, &inputs.around)?
        } else {
            continue;
        };
        let mode = bits(item.mode.or(default_mode));
        files.insert(item.path.clone(), File { bytes: text.into_bytes(), mode, owner: None });
    }
    Ok(())
}

fn bits(mode: Option<i32>) -> u32 {
    u32::try_from(mode.unwrap_or(DEFAULT_MODE)).unwrap_or(0o644) & 0o777
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> ConfigMap {
        serde_json::from_value(serde_json::json!({ "data": { "a": "1", "b": "2" }, "binaryData": { "c": "AAE=" } }))
            .unwrap()
    }

    fn keys<'k>(items: &'k [KeyToPath], optional: bool) -> Keys<'k> {
        Keys { name: "m", items: Some(items), optional, mode: Some(0o400) }
    }

    #[test]
    fn without_items_every_key_is_a_file() {
        let mut files = Files::new();
        from_config_map(Some(&map()), &keys(&[], false), &mut files).unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!((files["c"].bytes.as_slice(), files["a"].mode), ([0, 1].as_slice(), 0o400));
    }

    #[test]
    fn items_choose_path_and_mode_and_must_exist_unless_optional() {
        let item = |key: &str| KeyToPath { key: key.to_owned(), path: format!("d/{key}"), mode: Some(0o600) };
        let mut files = Files::new();
        from_config_map(Some(&map()), &keys(&[item("a")], false), &mut files).unwrap();
        assert_eq!(files["d/a"].mode, 0o600);
        let error = from_config_map(Some(&map()), &keys(&[item("z")], false), &mut files).unwrap_err();
        assert_eq!(error.to_string(), "references non-existent config key: z");
        from_config_map(Some(&map()), &keys(&[item("z")], true), &mut files).unwrap();
        let error = from_config_map(None, &keys(&[], false), &mut files).unwrap_err();
        assert_eq!(error.to_string(), "configmap \"m\" not found");
        from_config_map(None, &keys(&[], true), &mut files).unwrap();
    }

    #[test]
    fn a_token_belongs_to_the_one_user_who_reads_it() {
        let pod = |users: &[Option<i64>]| -> Pod {
            let container =
                |user: &Option<i64>| serde_json::json!({ "name": "c", "securityContext": { "runAsUser": user } });
            let containers: Vec<_> = users.iter().map(container).collect();
            serde_json::from_value(serde_json::json!({ "spec": { "containers": containers } })).unwrap()
        };
        for (users, mode, owner) in
            [(vec![Some(5), Some(5)], 0o600, Some(5)), (vec![Some(5), Some(6)], 0o644, None), (vec![None], 0o644, None)]
        {
            let file = token_file(&pod(&users), "t", None);
            assert_eq!((file.mode, file.owner), (mode, owner), "{users:?}");
            let mut grouped = pod(&users);
            grouped.spec.get_or_insert_default().security_context.get_or_insert_default().fs_group = Some(7);
            let file = token_file(&grouped, "t", None);
            assert_eq!((file.mode, file.owner), (0o600, owner), "{users:?} with a group");
        }
    }
}
