//! Capabilities: names, the default set, and what a container gets.
//!
//! Source of names and numbers: capabilities(7), `linux/capability.h`.

use std::fmt;

macro_rules! capabilities {
    ($($variant:ident $name:literal $number:literal,)*) => {
        /// A capability of Linux.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Capability {
            $(#[doc = concat!("`CAP_", $name, "`")] $variant = $number,)*
        }

        impl Capability {
            const ALL: &'static [(&'static str, Self)] = &[$(($name, Self::$variant),)*];
        }
    };
}

capabilities! {
    Chown "CHOWN" 0,
    DacOverride "DAC_OVERRIDE" 1,
    DacReadSearch "DAC_READ_SEARCH" 2,
    Fowner "FOWNER" 3,
    Fsetid "FSETID" 4,
    Kill "KILL" 5,
    Setgid "SETGID" 6,
    Setuid "SETUID" 7,
    Setpcap "SETPCAP" 8,
    LinuxImmutable "LINUX_IMMUTABLE" 9,
    NetBindService "NET_BIND_SERVICE" 10,
    NetBroadcast "NET_BROADCAST" 11,
    NetAdmin "NET_ADMIN" 12,
    NetRaw "NET_RAW" 13,
    IpcLock "IPC_LOCK" 14,
    IpcOwner "IPC_OWNER" 15,
    SysModule "SYS_MODULE" 16,
    SysRawio "SYS_RAWIO" 17,
    SysChroot "SYS_CHROOT" 18,
    SysPtrace "SYS_PTRACE" 19,
    SysPacct "SYS_PACCT" 20,
    SysAdmin "SYS_ADMIN" 21,
    SysBoot "SYS_BOOT" 22,
    SysNice "SYS_NICE" 23,
    SysResource "SYS_RESOURCE" 24,
    SysTime "SYS_TIME" 25,
    SysTtyConfig "SYS_TTY_CONFIG" 26,
    Mknod "MKNOD" 27,
    Lease "LEASE" 28,
    AuditWrite "AUDIT_WRITE" 29,
    AuditControl "AUDIT_CONTROL" 30,
    Setfcap "SETFCAP" 31,
    MacOverride "MAC_OVERRIDE" 32,
    MacAdmin "MAC_ADMIN" 33,
    Syslog "SYSLOG" 34,
    WakeAlarm "WAKE_ALARM" 35,
    BlockSuspend "BLOCK_SUSPEND" 36,
    AuditRead "AUDIT_READ" 37,
    Perfmon "PERFMON" 38,
    Bpf "BPF" 39,
    CheckpointRestore "CHECKPOINT_RESTORE" 40,
}

/// What containerd gives a container that asks for nothing.
const CONTAINERD_DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// A name that is no capability.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown capability {0:?}")]
pub struct UnknownCapability(String);

/// A set of capabilities.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    /// Every capability there is.
    #[must_use]
    pub fn all() -> Self {
        Self(Capability::ALL.iter().fold(0, |set, (_, capability)| set | bit(*capability)))
    }

    /// What containerd gives a container that asks for nothing.
    #[must_use]
    pub fn containerd_default() -> Self {
        Self(CONTAINERD_DEFAULT.iter().fold(0, |set, capability| set | bit(*capability)))
    }

    /// The default set without what is dropped and with what is added, as containerd reads CRI: `ALL` in either
    /// list is applied first, single names after it, so that `drop: ALL, add: CHOWN` leaves one.
    ///
    /// # Errors
    /// For a name that is no capability.
    pub fn requested(add: &[String], drop: &[String]) -> Result<Self, UnknownCapability> {
        let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
        let mut set = Self::containerd_default().0;
        if add.iter().any(is_all) {
            set = Self::all().0;
        }
        if drop.iter().any(is_all) {
            set = 0;
        }
        for name in add.iter().filter(|name| !is_all(name)) {
            set |= bit(parse(name)?);
        }
        for name in drop.iter().filter(|name| !is_all(name)) {
            set &= !bit(parse(name)?);
        }
        Ok(Self(set))
    }

    /// What is in both: nobody can give what he does not have.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether it is in.
    #[must_use]
    pub fn contains(self, capability: Capability) -> bool {
        self.0 & bit(capability) != 0
    }

    /// One bit per capability, as the kernel numbers them.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// From the hexadecimal form in `/proc/PID/status`.
    #[must_use]
    pub fn from_status(status: &str, field: &str) -> Option<Self> {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).ok().map(Self)
    }
}

impl fmt::Debug for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(Capability::ALL.iter().filter(|(_, capability)| self.contains(*capability)).map(|(name, _)| name))
            .finish()
    }
}

fn bit(capability: Capability) -> u64 {
    1 << (capability as u8)
}

/// With or without `CAP_`, in any case, as containerd.
fn parse(name: &str) -> Result<Capability, UnknownCapability> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let found = Capability::ALL.iter().find(|(known, _)| *known == short);
    found.map(|(_, capability)| *capability).ok_or_else(|| UnknownCapability(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requested(add: &[&str], drop: &[&str]) -> Result<CapabilitySet, UnknownCapability> {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        CapabilitySet::requested(&owned(add), &owned(drop))
    }

    #[test]
    fn adding_and_dropping_follow_containerd() {
        assert_eq!(requested(&[], &[]).unwrap(), CapabilitySet::containerd_default());
        assert_eq!(requested(&["NET_BIND_SERVICE"], &["ALL"]).unwrap().bits(), 1 << 10);
        assert_eq!(requested(&["ALL"], &[]).unwrap(), CapabilitySet::all());
        assert!(!requested(&["ALL"], &["SYS_ADMIN"]).unwrap().contains(Capability::SysAdmin));
        assert!(requested(&["cap_sys_time"], &[]).unwrap().contains(Capability::SysTime));
        assert_eq!(requested(&["FLY"], &[]), Err(UnknownCapability("FLY".to_owned())));
    }

    #[test]
    fn the_default_set_is_the_one_everybody_knows() {
        assert_eq!(CapabilitySet::containerd_default().bits(), 0xa804_25fb);
    }

    #[test]
    fn the_own_set_is_read_from_status() {
        let status = "Name:\tx\nCapBnd:\t00000000a80425fb\n";
        assert_eq!(CapabilitySet::from_status(status, "CapBnd"), Some(CapabilitySet::containerd_default()));
        assert_eq!(CapabilitySet::from_status(status, "CapEff"), None);
    }
}
