//! AppArmor: which profile a process gets. Choosing is pure ([`choose`]); [`Host`] is what the kernel says.
//!
//! A node without AppArmor confines nobody, as with other runtimes: a profile that somebody names is refused there.
//! The engine's own profile is loaded when the first container wants it, where `apparmor_parser` is installed or
//! somebody has loaded one of that name; elsewhere such containers have none.
//!
//! Source: containerd's `generateApparmorSpecOpts`.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::engine::{AppArmor, Security};

/// The engine's own profile.
pub const DEFAULT: &str = "reeve-default";

const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";
const PARSERS: [&str; 2] = ["/sbin/apparmor_parser", "/usr/sbin/apparmor_parser"];

/// What the engine's own profile says: programs may do all that capabilities, system call filter and mounts leave them,
/// but mount, write the kernel's own files, or reach processes outside of containers.
const DEFAULT_TEXT: &str = "
profile reeve-default flags=(attach_disconnected,mediate_deleted) {
  capability,
  file,
  network,
  umount,
  signal (receive) peer=unconfined,
  signal (send, receive) peer=reeve-default,
  ptrace (read, readby, trace, tracedby) peer=reeve-default,
  deny mount,
  deny /proc/{kcore,kmem,mem,sysrq-trigger} rwklx,
  deny /proc/{acpi,bus,fs,irq,scsi,tty}/** wklx,
  deny /proc/sys/[^kn]** wklx,
  deny /proc/sys/kernel/{?,??,[^s][^h][^m]**} wklx,
  deny /sys/{block,bus,class,dev,devices,firmware,hypervisor,kernel,module,power}/** wklx,
  deny /sys/fs/[^c]** wklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
";

/// What the kernel says of AppArmor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// Whether it is on.
    pub enabled: bool,
    /// Every profile that is loaded, a line each: `name (enforce)`.
    pub loaded: String,
}

/// Why there is no profile for a process. The texts are containerd's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppArmorError {
    /// Somebody counts on it, and the kernel has none.
    #[error("failed to get container spec opts: failed to generate apparmor spec opts: apparmor is not supported")]
    NotSupported,
    /// Nobody has loaded it.
    #[error("failed to get container spec opts: failed to generate apparmor spec opts: apparmor profile not found {0}")]
    NotFound(String),
    /// The engine's own cannot be loaded.
    #[error("load apparmor profile {DEFAULT}: {0}")]
    Default(String),
}

impl Host {
    /// Looks at the kernel.
    #[must_use]
    pub fn look() -> Self {
        let enabled = is_enabled();
        let loaded = if enabled { std::fs::read_to_string(PROFILES).unwrap_or_default() } else { String::new() };
        Self { enabled, loaded }
    }

    fn has(&self, profile: &str) -> bool {
        // A name may hold blanks; the mode stands behind the last one.
        self.loaded.lines().any(|line| line.rsplit_once(" (").is_some_and(|(name, _)| name == profile))
    }
}

/// Whether the kernel has AppArmor, and it is on.
#[must_use]
pub fn is_enabled() -> bool {
    Path::new("/sys/kernel/security/apparmor").exists()
        && std::fs::read_to_string(ENABLED).is_ok_and(|text| text.starts_with('Y'))
}

/// The profile that a process gets; `None` changes nothing.
///
/// # Errors
/// When somebody counts on one that is not there.
pub fn choose(security: &Security, host: &Host) -> Result<Option<String>, AppArmorError> {
    match &security.app_armor {
        AppArmor::Unconfined => Ok(None),
        AppArmor::RuntimeDefault => Ok((wants_default(security) && host.has(DEFAULT)).then(|| DEFAULT.to_owned())),
        AppArmor::Localhost(_) if !host.enabled => Err(AppArmorError::NotSupported),
        AppArmor::Localhost(profile) if host.has(profile) => Ok(Some(profile.clone())),
        AppArmor::Localhost(profile) => Err(AppArmorError::NotFound(profile.clone())),
    }
}

/// A privileged container has none unless it asks for one.
fn wants_default(security: &Security) -> bool {
    security.app_armor == AppArmor::RuntimeDefault && !security.privileged
}

/// The profile that a container's processes get. Loads the engine's own if it is wanted and not there.
///
/// # Errors
/// See [`choose`]; and when the engine's own cannot be loaded.
pub fn profile(security: &Security) -> Result<Option<String>, AppArmorError> {
    let host = Host::look();
    let parser = PARSERS.into_iter().find(|path| Path::new(path).exists());
    match parser.filter(|_| host.enabled && wants_default(security) && !host.has(DEFAULT)) {
        Some(parser) => {
            load_default(parser).map_err(AppArmorError::Default)?;
            choose(security, &Host::look())
        }
        None => choose(security, &host),
    }
}

fn load_default(parser: &str) -> Result<(), String> {
    let text = |err: std::io::Error| format!("{parser}: {err}");
    let mut command = Command::new(parser);
    command.args(["--skip-cache", "--replace"]).env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(text)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends early says why itself.
        let _ = stdin.write_all(DEFAULT_TEXT.as_bytes());
    }
    let output = child.wait_with_output().map_err(text)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{parser}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(app_armor: AppArmor, privileged: bool, host: &Host) -> Result<Option<String>, String> {
        choose(&Security { app_armor, privileged, ..Security::default() }, host).map_err(|err| err.to_string())
    }

    #[test]
    fn a_profile_is_the_one_that_is_asked_for_or_the_engines_own() {
        let loaded = "my profile (enforce)\nreeve-default (enforce)\n/usr/bin/man (complain)\n".to_owned();
        let host = Host { enabled: true, loaded };
        let own = Some(DEFAULT.to_owned());
        assert_eq!(chosen(AppArmor::RuntimeDefault, false, &host), Ok(own));
        assert_eq!(chosen(AppArmor::RuntimeDefault, true, &host), Ok(None), "privileged");
        assert_eq!(chosen(AppArmor::Unconfined, false, &host), Ok(None));
        for (profile, privileged) in [("my profile", false), ("my profile", true), ("/usr/bin/man", false)] {
            let asked = AppArmor::Localhost(profile.to_owned());
            assert_eq!(chosen(asked, privileged, &host), Ok(Some(profile.to_owned())));
        }
        let why = "failed to get container spec opts: failed to generate apparmor spec opts: ";
        for missing in ["my", "profile", "my profile (enforce)"] {
            let asked = chosen(AppArmor::Localhost(missing.to_owned()), false, &host);
            assert_eq!(asked, Err(format!("{why}apparmor profile not found {missing}")));
        }
        let none = Host::default();
        assert_eq!(chosen(AppArmor::RuntimeDefault, false, &none), Ok(None), "nothing to confine with");
        let asked = chosen(AppArmor::Localhost("my profile".to_owned()), false, &none);
        assert_eq!(asked, Err(format!("{why}apparmor is not supported")));
    }

    #[test]
    fn the_engines_own_profile_is_one_that_the_parser_takes() {
        let Some(parser) = PARSERS.into_iter().find(|path| Path::new(path).exists()) else {
            eprintln!("SKIPPED: apparmor_parser is not installed");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("profile");
        std::fs::write(&file, DEFAULT_TEXT).unwrap();
        let output = Command::new(parser).args(["--skip-kernel-load", "--skip-cache"]).arg(&file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(DEFAULT_TEXT.contains(&format!("profile {DEFAULT} ")));
    }
}
