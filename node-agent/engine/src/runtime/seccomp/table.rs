//! Names and numbers of system calls, per architecture.

use std::collections::HashMap;
use std::sync::LazyLock;

const TABLE: &str = include_str!("syscalls.txt");

/// The bit that marks an x32 call (`__X32_SYSCALL_BIT`).
const X32_BIT: u32 = 0x4000_0000;

/// Numbers of one call: x86_64, x86, x32, aarch64.
type Numbers = [Option<u32>; 4];

static NUMBERS: LazyLock<HashMap<&'static str, Numbers>> = LazyLock::new(|| {
    TABLE
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let name = fields.next()?;
            let mut numbers = [None; 4];
            for (slot, field) in numbers.iter_mut().zip(fields) {
                *slot = field.parse().ok();
            }
            Some((name, numbers))
        })
        .collect()
});

/// A set of system call numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abi {
    X86_64,
    X86,
    X32,
    Aarch64,
}

impl Abi {
    /// The machine's own.
    pub(super) const fn native() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    /// By its name in a profile, if this machine can have it.
    pub(super) fn secondary(name: &str) -> Option<Self> {
        match (Self::native(), name) {
            (Self::X86_64, "SCMP_ARCH_X86") => Some(Self::X86),
            (Self::X86_64, "SCMP_ARCH_X32") => Some(Self::X32),
            _ => None,
        }
    }

    /// `AUDIT_ARCH_*`; x32 shares that of x86_64.
    pub(super) const fn audit_arch(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// The number by which the kernel knows a call.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        let [x86_64, x86, x32, aarch64] = *NUMBERS.get(name)?;
        match self {
            Self::X86_64 => x86_64,
            Self::X86 => x86,
            Self::X32 => x32.map(|number| number | X32_BIT),
            Self::Aarch64 => aarch64,
        }
    }
}

/// Every name in the table.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    NUMBERS.keys().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_agrees_with_the_c_library() {
        for (name, number) in [
            ("read", libc::SYS_read),
            ("clone3", libc::SYS_clone3),
            ("openat2", libc::SYS_openat2),
            ("bpf", libc::SYS_bpf),
        ] {
            assert_eq!(Abi::native().number(name).map(i64::from), Some(number), "{name}");
        }
        assert!(names().count() > 400);
        assert_eq!(Abi::X32.number("read"), Some(X32_BIT));
        assert_eq!(Abi::X86.number("socketcall"), Some(102));
        assert_eq!(Abi::X86_64.number("socketcall"), None);
    }
}
