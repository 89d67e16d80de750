//! Who a container's process is and what it may do.

use std::path::PathBuf;

use reeve_engine::engine::{AppArmor, Seccomp, Security};
use reeve_proto::cri::security_profile::ProfileType;
use reeve_proto::cri::{LinuxContainerSecurityContext, SecurityProfile, SupplementalGroupsPolicy};

use super::{Refused, filled, id};

/// Before a path in the profiles' older, textual form.
const LOCALHOST: &str = "localhost/";

/// What the engine is to enforce. What it cannot is refused, never dropped; only SELinux labels mean nothing, as with
/// other runtimes where there is no SELinux.
///
/// # Errors
/// For ids that are none, and for what this engine does not have.
pub fn to_engine(given: &LinuxContainerSecurityContext) -> Result<Security, Refused> {
    if given.run_as_group.is_some() && given.run_as_user.is_none() && given.run_as_username.is_empty() {
        return Err(Refused::new("runAsGroup is specified without runAsUser"));
    }
    let capabilities = given.capabilities.clone().unwrap_or_default();
    if !capabilities.add_ambient_capabilities.is_empty() {
        return Err(Refused::new("ambient capabilities are not supported"));
    }
    let groups = given.supplemental_groups.iter().map(|group| id("supplemental group", *group));
    Ok(Security {
        privileged: given.privileged,
        run_as_user: given.run_as_user.map(|user| id("user", user.value)).transpose()?,
        run_as_username: filled(&given.run_as_username),
        run_as_group: given.run_as_group.map(|group| id("group", group.value)).transpose()?,
        run_as_non_root: false,
        supplemental_groups: groups.collect::<Result<_, _>>()?,
        strict_groups: given.supplemental_groups_policy() == SupplementalGroupsPolicy::Strict,
        capabilities_add: names(&capabilities.add_capabilities),
        capabilities_drop: names(&capabilities.drop_capabilities),
        no_new_privs: given.no_new_privs,
        read_only_rootfs: given.readonly_rootfs,
        seccomp: seccomp(given)?,
        app_armor: app_armor(given)?,
        unmasked_proc: false,
        masked_paths: (!given.masked_paths.is_empty()).then(|| given.masked_paths.clone()),
        read_only_paths: (!given.readonly_paths.is_empty()).then(|| given.readonly_paths.clone()),
    })
}

/// Without `CAP_`, in capitals, as the engine has them.
fn names(given: &[String]) -> Vec<String> {
    let upper = given.iter().map(|name| name.to_ascii_uppercase());
    upper.map(|name| name.strip_prefix("CAP_").map_or(name.clone(), str::to_owned)).collect()
}

/// Nothing said means no filter, as with other runtimes.
fn seccomp(given: &LinuxContainerSecurityContext) -> Result<Seccomp, Refused> {
    if let Some(profile) = &given.seccomp {
        return match profile.profile_type() {
            ProfileType::RuntimeDefault => Ok(Seccomp::RuntimeDefault),
            ProfileType::Unconfined => Ok(Seccomp::Unconfined),
            ProfileType::Localhost => localhost(&profile.localhost_ref).map(Seccomp::Localhost),
        };
    }
    match given.seccomp_profile_path.as_str() {
        "" | "unconfined" => Ok(Seccomp::Unconfined),
        "runtime/default" | "docker/default" => Ok(Seccomp::RuntimeDefault),
        other => match other.strip_prefix(LOCALHOST) {
            Some(path) => localhost(path).map(Seccomp::Localhost),
            None => Err(Refused::new(format!("invalid seccomp profile {other:?}"))),
        },
    }
}

fn localhost(path: &str) -> Result<PathBuf, Refused> {
    let path = PathBuf::from(path.strip_prefix(LOCALHOST).unwrap_or(path));
    if path.is_absolute() {
        return Ok(path);
    }
    Err(Refused::new(format!("seccomp profile {} must be an absolute path", path.display())))
}

/// Nothing said means the default, as with other runtimes.
fn app_armor(given: &LinuxContainerSecurityContext) -> Result<AppArmor, Refused> {
    let localhost = |name: &str| match name.strip_prefix(LOCALHOST).unwrap_or(name) {
        "" => Err(Refused::new("invalid empty apparmor profile name")),
        name => Ok(AppArmor::Localhost(name.to_owned())),
    };
    if let Some(profile) = &given.apparmor {
        return match profile.profile_type() {
            ProfileType::RuntimeDefault => Ok(AppArmor::RuntimeDefault),
            ProfileType::Unconfined => Ok(AppArmor::Unconfined),
            ProfileType::Localhost => localhost(&profile.localhost_ref),
        };
    }
    match given.apparmor_profile.as_str() {
        "" | "runtime/default" => Ok(AppArmor::RuntimeDefault),
        "unconfined" => Ok(AppArmor::Unconfined),
        other if other.starts_with(LOCALHOST) => localhost(other),
        other => Err(Refused::new(format!("invalid apparmor profile {other:?}"))),
    }
}

/// The same, as it is told to another runtime.
#[must_use]
pub fn to_cri(own: &Security) -> LinuxContainerSecurityContext {
    use reeve_proto::cri::{Capability, Int64Value};
    let number = |id: Option<u32>| id.map(|id| Int64Value { value: id.into() });
    let profile =
        |kind: ProfileType, path: String| Some(SecurityProfile { profile_type: kind.into(), localhost_ref: path });
    let policy = if own.strict_groups { SupplementalGroupsPolicy::Strict } else { SupplementalGroupsPolicy::Merge };
    LinuxContainerSecurityContext {
        capabilities: Some(Capability {
            add_capabilities: own.capabilities_add.clone(),
            drop_capabilities: own.capabilities_drop.clone(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged: own.privileged,
        run_as_user: number(own.run_as_user),
        run_as_username: own.run_as_username.clone().unwrap_or_default(),
        run_as_group: number(own.run_as_group),
        supplemental_groups: own.supplemental_groups.iter().map(|group| i64::from(*group)).collect(),
        supplemental_groups_policy: policy.into(),
        no_new_privs: own.no_new_privs,
        readonly_rootfs: own.read_only_rootfs,
        seccomp: match &own.seccomp {
            Seccomp::RuntimeDefault => profile(ProfileType::RuntimeDefault, String::new()),
            Seccomp::Unconfined => profile(ProfileType::Unconfined, String::new()),
            Seccomp::Localhost(path) => profile(ProfileType::Localhost, path.to_string_lossy().into_owned()),
        },
        apparmor: match &own.app_armor {
            // What a runtime does where nothing is said: one without AppArmor refuses to be told its default.
            AppArmor::RuntimeDefault => None,
            AppArmor::Unconfined => profile(ProfileType::Unconfined, String::new()),
            AppArmor::Localhost(name) => profile(ProfileType::Localhost, name.clone()),
        },
        masked_paths: if own.unmasked_proc { Vec::new() } else { own.masked_paths.clone().unwrap_or_else(masked) },
        readonly_paths: match &own.read_only_paths {
            _ if own.unmasked_proc => Vec::new(),
            Some(paths) => paths.clone(),
            None => read_only(),
        },
        ..LinuxContainerSecurityContext::default()
    }
}

fn masked() -> Vec<String> {
    reeve_engine::runtime::root::MASKED.iter().map(|path| (*path).to_owned()).collect()
}

fn read_only() -> Vec<String> {
    reeve_engine::runtime::root::READ_ONLY.iter().map(|path| (*path).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use reeve_proto::cri::{Capability, Int64Value};

    use super::*;

    fn refusal(given: &LinuxContainerSecurityContext) -> String {
        to_engine(given).expect_err("refused").0
    }

    #[test]
    fn what_cannot_be_enforced_is_refused() {
        let none = LinuxContainerSecurityContext::default;
        let group = LinuxContainerSecurityContext { run_as_group: Some(Int64Value { value: 1 }), ..none() };
        assert_eq!(refusal(&group), "runAsGroup is specified without runAsUser");
        let user = LinuxContainerSecurityContext { run_as_user: Some(Int64Value { value: -1 }), ..none() };
        assert_eq!(refusal(&user), "invalid user -1");
        let profile = LinuxContainerSecurityContext { apparmor_profile: "localhost/".to_owned(), ..none() };
        assert_eq!(refusal(&profile), "invalid empty apparmor profile name");
        let profile = LinuxContainerSecurityContext { apparmor_profile: "mine".to_owned(), ..none() };
        assert_eq!(refusal(&profile), "invalid apparmor profile \"mine\"");
        let relative = LinuxContainerSecurityContext { seccomp_profile_path: "localhost/p.json".to_owned(), ..none() };
        assert_eq!(refusal(&relative), "seccomp profile p.json must be an absolute path");
    }

    #[test]
    fn an_engines_security_survives_both_ways() {
        let own = Security {
            run_as_user: Some(1000),
            run_as_group: Some(1000),
            supplemental_groups: vec![7],
            strict_groups: true,
            capabilities_add: vec!["NET_ADMIN".to_owned()],
            capabilities_drop: vec!["ALL".to_owned()],
            no_new_privs: true,
            read_only_rootfs: true,
            seccomp: Seccomp::Localhost("/p.json".into()),
            app_armor: AppArmor::Localhost("mine".to_owned()),
            masked_paths: Some(vec!["/proc/kcore".to_owned()]),
            read_only_paths: Some(vec!["/proc/sys".to_owned()]),
            ..Security::default()
        };
        let back = to_engine(&to_cri(&own)).expect("valid");
        assert_eq!(format!("{back:?}"), format!("{own:?}"));
    }

    #[test]
    fn apparmors_profiles_are_named_in_either_form() {
        let typed = |kind: ProfileType, name: &str| LinuxContainerSecurityContext {
            apparmor: Some(SecurityProfile { profile_type: kind.into(), localhost_ref: name.to_owned() }),
            // The newer form goes before.
            apparmor_profile: "runtime/default".to_owned(),
            ..LinuxContainerSecurityContext::default()
        };
        let text = |name: &str| LinuxContainerSecurityContext {
            apparmor_profile: name.to_owned(),
            ..LinuxContainerSecurityContext::default()
        };
        let mine = || AppArmor::Localhost("mine".to_owned());
        for (given, wanted) in [
            (typed(ProfileType::Localhost, "mine"), mine()),
            (typed(ProfileType::Localhost, "localhost/mine"), mine()),
            (text("localhost/mine"), mine()),
            (typed(ProfileType::Unconfined, ""), AppArmor::Unconfined),
            (text("unconfined"), AppArmor::Unconfined),
            (text("runtime/default"), AppArmor::RuntimeDefault),
            (text(""), AppArmor::RuntimeDefault),
        ] {
            assert_eq!(to_engine(&given).expect("valid").app_armor, wanted);
        }
    }

    #[test]
    fn nothing_said_of_seccomp_is_no_filter_and_capabilities_may_have_their_prefix() {
        let capabilities = Capability { add_capabilities: vec!["CAP_sys_time".to_owned()], ..Capability::default() };
        let given = LinuxContainerSecurityContext {
            capabilities: Some(capabilities),
            ..LinuxContainerSecurityContext::default()
        };
        let own = to_engine(&given).expect("valid");
        assert_eq!((own.seccomp, own.capabilities_add), (Seccomp::Unconfined, vec!["SYS_TIME".to_owned()]));
    }
}
