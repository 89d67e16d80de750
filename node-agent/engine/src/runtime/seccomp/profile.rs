//! The OCI's seccomp profile (`runtime-spec/config-linux.md`, section "Seccomp"), as far as the kernel can
//! enforce it without a listener.

use serde::{Deserialize, Serialize};

/// A profile: what happens to each system call.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// For every call that no rule names.
    pub default_action: Action,
    /// Error number of a default [`Action::Errno`]; `EPERM` when absent.
    #[serde(default)]
    pub default_errno_ret: Option<u16>,
    /// Architectures besides the machine's own, `SCMP_ARCH_X86`.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// The rules.
    #[serde(default)]
    pub syscalls: Vec<Rule>,
}

/// What happens to some system calls, perhaps depending on their arguments.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// The calls. Names that this program does not know are passed over, as runc does.
    pub names: Vec<String>,
    /// What happens.
    pub action: Action,
    /// Error number of [`Action::Errno`], message of [`Action::Trace`].
    #[serde(default)]
    pub errno_ret: Option<u16>,
    /// All of these must hold; several on one argument are alternatives, as runc reads them.
    #[serde(default)]
    pub args: Vec<Condition>,
}

/// What the kernel does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum Action {
    /// Let it happen.
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    /// Let it happen and write it to the audit log.
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    /// Fail with an error number.
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    /// Kill the thread.
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    /// Kill the process.
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    /// Send SIGSYS.
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    /// Ask a tracer.
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
}

/// A comparison of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which argument, from 0.
    pub index: u8,
    /// What it is compared to; the mask of [`Operator::MaskedEqual`].
    pub value: u64,
    /// The expected result of [`Operator::MaskedEqual`].
    #[serde(default)]
    pub value_two: u64,
    /// How.
    pub op: Operator,
}

/// How an argument is compared, as unsigned 64-bit numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum Operator {
    /// `arg != value`
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    /// `arg < value`
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    /// `arg <= value`
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    /// `arg == value`
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    /// `arg >= value`
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    /// `arg > value`
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    /// `arg & value == value_two`
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

impl Action {
    /// The value a filter returns (`linux/seccomp.h`).
    pub(super) fn code(self, errno: Option<u16>) -> u32 {
        let data = |default: i32| u32::from(errno.unwrap_or(u16::try_from(default).unwrap_or(1)));
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Log => libc::SECCOMP_RET_LOG,
            Self::Errno => libc::SECCOMP_RET_ERRNO | data(libc::EPERM),
            Self::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Self::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
            Self::Trap => libc::SECCOMP_RET_TRAP,
            Self::Trace => libc::SECCOMP_RET_TRACE | data(libc::EPERM),
        }
    }
}
