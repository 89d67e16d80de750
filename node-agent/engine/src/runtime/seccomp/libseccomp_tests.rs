//! The verdict of our compiler beside libseccomp's, for every system call: the reference that runc stands on.
//! Needs the library on the test machine (Debian: `libseccomp2`); skips loudly without it.

#![allow(unsafe_code, reason = "calls into a C library that is loaded at run time")]

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::io::{Read as _, Seek as _};
use std::os::fd::AsRawFd as _;

use super::compile_tests::{Call, run};
use super::profile::{Action, Operator, Profile};
use super::table::Abi;
use super::{compile, default::default_profile, table};
use crate::runtime::caps::CapabilitySet;
use crate::supervisor::plan::BpfProgram;

/// `struct scmp_arg_cmp`
#[repr(C)]
#[derive(Clone, Copy)]
struct ArgCompare {
    argument: c_uint,
    operator: c_int,
    a: u64,
    b: u64,
}

/// The functions of libseccomp that are used here.
struct Library {
    init: unsafe extern "C" fn(u32) -> *mut c_void,
    arch_add: unsafe extern "C" fn(*mut c_void, u32) -> c_int,
    resolve: unsafe extern "C" fn(*const c_char) -> c_int,
    rule_add: unsafe extern "C" fn(*mut c_void, u32, c_int, c_uint, *const ArgCompare) -> c_int,
    export: unsafe extern "C" fn(*mut c_void, c_int) -> c_int,
    release: unsafe extern "C" fn(*mut c_void),
}

impl Library {
    fn load() -> Option<Self> {
        // SAFETY: loads a library and looks functions up whose types are those of seccomp(3)'s manual pages.
        unsafe {
            let handle = libc::dlopen(c"libseccomp.so.2".as_ptr(), libc::RTLD_NOW);
            if handle.is_null() {
                return None;
            }
            let find = |name: &str| {
                let name = CString::new(name).unwrap();
                let found = libc::dlsym(handle, name.as_ptr());
                assert!(!found.is_null(), "libseccomp has no {name:?}");
                found
            };
            Some(Self {
                init: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(u32) -> *mut c_void>(find(
                    "seccomp_init",
                )),
                arch_add: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, u32) -> c_int>(find(
                    "seccomp_arch_add",
                )),
                resolve: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*const c_char) -> c_int>(find(
                    "seccomp_syscall_resolve_name",
                )),
                rule_add: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut c_void, u32, c_int, c_uint, *const ArgCompare) -> c_int,
                >(find("seccomp_rule_add_array")),
                export: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, c_int) -> c_int>(find(
                    "seccomp_export_bpf",
                )),
                release: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void)>(find("seccomp_release")),
            })
        }
    }

    /// Number of a call for libseccomp's own purposes; `None` when it does not know it.
    fn resolve(&self, name: &str) -> Option<c_int> {
        let name = CString::new(name).unwrap();
        // SAFETY: a C string that lives through the call.
        let number = unsafe { (self.resolve)(name.as_ptr()) };
        (number != -1).then_some(number)
    }

    fn compile(&self, profile: &Profile) -> BpfProgram {
        let mut file = tempfile::tempfile().unwrap();
        // SAFETY: a filter context that is used and released here only.
        unsafe {
            let context = (self.init)(profile.default_action.code(profile.default_errno_ret));
            assert_eq!((self.arch_add)(context, Abi::X86.audit_arch()), 0);
            for rule in &profile.syscalls {
                let action = rule.action.code(rule.errno_ret);
                for number in rule.names.iter().filter_map(|name| self.resolve(name)) {
                    let args: Vec<ArgCompare> = rule.args.iter().map(compare).collect();
                    let count = c_uint::try_from(args.len()).unwrap();
                    (self.rule_add)(context, action, number, count, args.as_ptr());
                }
            }
            assert_eq!((self.export)(context, file.as_raw_fd()), 0);
            (self.release)(context);
        }
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        BpfProgram(bytes)
    }
}

fn compare(condition: &super::profile::Condition) -> ArgCompare {
    let operator = match condition.op {
        Operator::NotEqual => 1,
        Operator::Less => 2,
        Operator::LessOrEqual => 3,
        Operator::Equal => 4,
        Operator::GreaterOrEqual => 5,
        Operator::Greater => 6,
        Operator::MaskedEqual => 7,
    };
    ArgCompare { argument: condition.index.into(), operator, a: condition.value, b: condition.value_two }
}

#[test]
fn libseccomp_says_the_same_of_every_call_it_knows() {
    let Some(library) = Library::load().filter(|_| cfg!(target_arch = "x86_64")) else {
        eprintln!("SKIPPED: libseccomp.so.2 is not installed, or this is no x86_64");
        return;
    };
    let mut compared = 0;
    for caps in [CapabilitySet::containerd_default(), CapabilitySet::all()] {
        let profile = Profile { architectures: vec!["SCMP_ARCH_X86".to_owned()], ..default_profile(caps) };
        assert_eq!(profile.default_action, Action::Errno);
        let (ours, theirs) = (compile(&profile).unwrap(), library.compile(&profile));
        for name in table::names().filter(|name| library.resolve(name).is_some()) {
            // 32-bit socket calls have two numbers each there; libseccomp rewrites one into the other.
            let abis = if ["socket", "shmat", "semtimedop"].contains(&name) {
                &[Abi::X86_64][..]
            } else {
                &[Abi::X86_64, Abi::X86]
            };
            for (abi, number) in abis.iter().filter_map(|abi| Some((abi, abi.number(name)?))) {
                for first in [0, 8, 38, 40, 0x2_0000, 0x1000_0000, 0xffff_ffff] {
                    let call = Call { arch: abi.audit_arch(), number, args: [first; 6] };
                    let (said, reference) = (run(&ours, call), run(&theirs, call));
                    let newer = said == libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
                    assert!(
                        said == reference || (newer && reference != libc::SECCOMP_RET_ALLOW),
                        "{name} {abi:?} {first:#x}: {said:#x} {reference:#x}"
                    );
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 5000, "{compared}");
}
