//! The `RuntimeDefault` profile: equal in effect to containerd's and Docker's.
//!
//! Everything a program needs is allowed; what reaches the kernel's own management (modules, clocks, mounts,
//! tracing of others, keyrings, raw I/O) is refused unless the container holds the capability that the kernel
//! asks for anyway. Source of the choice: Docker's documentation "Seccomp security profiles for Docker", section
//! "Significant syscalls blocked by the default profile", and system-calls' man pages.

use super::profile::{Action, Condition, Operator, Profile, Rule};
use crate::runtime::caps::{Capability, CapabilitySet};

/// Allowed to everybody.
const ALWAYS: &str = "\
accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime \
clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep \
clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 \
epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit \
exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 \
fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat \
fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait \
futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid \
getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid \
getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname \
getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 \
inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl \
ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 \
lgetxattr link linkat listen listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr \
lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat \
mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 \
mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall \
munmap name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open pidfd_send_signal \
pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 \
process_mrelease pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat \
readv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat \
renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn \
rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity sched_getattr \
sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval \
sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield \
seccomp select semctl semget semop semtimedop semtimedop_time64 sendfile sendfile64 sendmmsg sendmsg sendto \
setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority \
setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit set_robust_list \
setsid setsockopt set_thread_area set_tid_address setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget \
shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs \
statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create \
timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create \
timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit \
umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid \
write writev";

/// Allowed on this kind of machine.
#[cfg(target_arch = "x86_64")]
const ON_THIS_MACHINE: &str = "arch_prctl modify_ldt";
#[cfg(not(target_arch = "x86_64"))]
const ON_THIS_MACHINE: &str = "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls";

/// Allowed with a capability.
const WITH_CAPABILITY: [(Capability, &str); 13] = [
    (Capability::DacReadSearch, "open_by_handle_at"),
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree open_tree_attr perf_event_open \
         quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (Capability::SysModule, "delete_module finit_module init_module"),
    (Capability::SysPacct, "acct"),
    (Capability::SysPtrace, "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev"),
    (Capability::SysRawio, "ioperm iopl"),
    (Capability::SysTime, "clock_settime clock_settime64 settimeofday stime"),
    (Capability::SysTtyConfig, "vhangup"),
    (Capability::SysNice, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (Capability::Syslog, "syslog"),
    (Capability::Bpf, "bpf"),
];

/// `personality(2)`: Linux, 32-bit Linux, `UNAME26`, both, and the question.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// All `CLONE_NEW*` flags: a container may not make namespaces.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;
/// `AF_VSOCK`: would reach a hypervisor past the pod's network.
const AF_VSOCK: u64 = 40;

/// The profile for a container with these capabilities.
#[must_use]
pub fn default_profile(capabilities: CapabilitySet) -> Profile {
    let mut syscalls = vec![allow(ALWAYS), allow(ON_THIS_MACHINE)];
    let argument = |value, op| vec![Condition { index: 0, value, value_two: 0, op }];
    for personality in PERSONALITIES {
        syscalls.push(Rule { args: argument(personality, Operator::Equal), ..allow("personality") });
    }
    syscalls.push(Rule { args: argument(AF_VSOCK, Operator::NotEqual), ..allow("socket") });
    for (capability, names) in WITH_CAPABILITY {
        if capabilities.contains(capability) {
            syscalls.push(allow(names));
        }
    }
    if capabilities.contains(Capability::Perfmon) {
        syscalls.push(allow("perf_event_open"));
    }
    if !capabilities.contains(Capability::SysAdmin) {
        let without_namespaces = argument(NAMESPACE_FLAGS, Operator::MaskedEqual);
        syscalls.push(Rule { args: without_namespaces, ..allow("clone") });
        // Its flags are behind a pointer, out of a filter's sight: C libraries then fall back to `clone`.
        let errno_ret = u16::try_from(libc::ENOSYS).ok();
        syscalls.push(Rule { action: Action::Errno, errno_ret, ..allow("clone3") });
    }
    Profile {
        default_action: Action::Errno,
        default_errno_ret: None,
        architectures: vec!["SCMP_ARCH_X86".to_owned(), "SCMP_ARCH_X32".to_owned()],
        syscalls,
    }
}

fn allow(names: &str) -> Rule {
    Rule {
        names: names.split_ascii_whitespace().map(str::to_owned).collect(),
        action: Action::Allow,
        errno_ret: None,
        args: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::seccomp::table;

    #[test]
    fn every_call_the_profile_names_exists() {
        let known: std::collections::HashSet<&str> = table::names().collect();
        let profile = default_profile(CapabilitySet::all());
        let unknown: Vec<&String> =
            profile.syscalls.iter().flat_map(|rule| &rule.names).filter(|n| !known.contains(n.as_str())).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
