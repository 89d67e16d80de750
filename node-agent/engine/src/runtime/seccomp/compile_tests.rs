//! The compiled program must say of every call what the profile says: it is run here by a small BPF machine and
//! compared with a plain reading of the profile.

use super::compile::{
    AND, ARCH_AT, ARGS_AT, CompileError, JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL, LOAD, NUMBER_AT, RETURN,
    compile, halves,
};
use super::default::default_profile;
use super::profile::{Action, Condition, Operator, Profile, Rule};
use super::table::{self, Abi};
use crate::runtime::caps::CapabilitySet;
use crate::supervisor::plan::BpfProgram;

/// `struct seccomp_data`
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) arch: u32,
    pub(super) number: u32,
    pub(super) args: [u64; 6],
}

impl Call {
    fn word(&self, at: u32) -> u32 {
        match at {
            NUMBER_AT => self.number,
            ARCH_AT => self.arch,
            _ => {
                let (high, low) = halves(self.args[((at - ARGS_AT) / 8) as usize]);
                if (at - ARGS_AT).is_multiple_of(8) { low } else { high }
            }
        }
    }
}

/// Runs a program as the kernel would.
pub(super) fn run(program: &BpfProgram, call: Call) -> u32 {
    let code: Vec<(u16, u8, u8, u32)> = program
        .0
        .chunks_exact(8)
        .map(|i| {
            let operand = u32::from_ne_bytes(i[4..].try_into().unwrap());
            (u16::from_ne_bytes([i[0], i[1]]), i[2], i[3], operand)
        })
        .collect();
    let (mut at, mut acc) = (0_usize, 0_u32);
    loop {
        let (op, then, otherwise, k) = code[at];
        at += 1;
        let branch = |holds: bool| usize::from(if holds { then } else { otherwise });
        match op {
            LOAD => acc = call.word(k),
            AND => acc &= k,
            JUMP => at += k as usize,
            JUMP_EQUAL => at += branch(acc == k),
            JUMP_GREATER => at += branch(acc > k),
            JUMP_GREATER_EQUAL => at += branch(acc >= k),
            RETURN => return k,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

/// What the profile says, read rule by rule.
fn reading(profile: &Profile, name: &str, args: [u64; 6]) -> u32 {
    let holds = |c: &Condition| {
        let arg = args[usize::from(c.index)];
        match c.op {
            Operator::NotEqual => arg != c.value,
            Operator::Less => arg < c.value,
            Operator::LessOrEqual => arg <= c.value,
            Operator::Equal => arg == c.value,
            Operator::GreaterOrEqual => arg >= c.value,
            Operator::Greater => arg > c.value,
            Operator::MaskedEqual => arg & c.value == c.value_two,
        }
    };
    let rules: Vec<&Rule> = profile.syscalls.iter().filter(|r| r.names.iter().any(|n| n == name)).collect();
    rules
        .iter()
        .find(|r| !r.args.is_empty() && r.args.iter().all(holds))
        .or_else(|| rules.iter().find(|r| r.args.is_empty()))
        .map_or(profile.default_action.code(profile.default_errno_ret), |r| r.action.code(r.errno_ret))
}

#[test]
fn the_program_says_of_every_call_what_the_default_profile_says() {
    for caps in [CapabilitySet::containerd_default(), CapabilitySet::all(), CapabilitySet::default()] {
        let profile = default_profile(caps);
        let program = compile(&profile).unwrap();
        for name in table::names() {
            for abi in [Abi::native(), Abi::X86, Abi::X32] {
                let Some(number) = abi.number(name) else { continue };
                for first in [0, 1, 8, 16, 38, 40, 0x10000, 0x2_0000, 0x7e02_0000, 0xffff_ffff, u64::MAX] {
                    let args = [first; 6];
                    let said = run(&program, Call { arch: abi.audit_arch(), number, args });
                    let meant = reading(&profile, name, args);
                    let newer = said == libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
                    assert!(said == meant || (newer && meant != libc::SECCOMP_RET_ALLOW), "{name} {abi:?} {first:#x}");
                }
            }
        }
    }
}

#[test]
fn every_comparison_holds_at_its_edges_in_both_halves() {
    use Operator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, MaskedEqual, NotEqual};
    let values = [0, 1, 5, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0005, 0x2_0000_0000, u64::MAX - 1, u64::MAX];
    for op in [NotEqual, Less, LessOrEqual, Equal, GreaterOrEqual, Greater, MaskedEqual] {
        for value in values {
            for index in [0, 5] {
                let profile = Profile {
                    default_action: Action::Errno,
                    default_errno_ret: None,
                    architectures: Vec::new(),
                    syscalls: vec![Rule {
                        names: vec!["read".to_owned()],
                        action: Action::Allow,
                        errno_ret: None,
                        args: vec![Condition { index, value, value_two: value & 0x1_0000_0001, op }],
                    }],
                };
                let program = compile(&profile).unwrap();
                for arg in values {
                    let mut args = [7; 6];
                    args[usize::from(index)] = arg;
                    let number = Abi::native().number("read").unwrap();
                    let said = run(&program, Call { arch: Abi::native().audit_arch(), number, args });
                    assert_eq!(said, reading(&profile, "read", args), "{arg:#x} {op:?} {value:#x}");
                }
            }
        }
    }
}

#[test]
fn a_foreign_architecture_is_killed_and_a_future_call_does_not_exist() {
    let program = compile(&default_profile(CapabilitySet::default())).unwrap();
    let call = Call { arch: 0x1234, number: 0, args: [0; 6] };
    assert_eq!(run(&program, call), libc::SECCOMP_RET_KILL_THREAD);
    let call = Call { arch: Abi::native().audit_arch(), number: 4000, args: [0; 6] };
    assert_eq!(run(&program, call), libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned());
}

#[test]
fn several_comparisons_of_one_argument_are_alternatives() {
    let profile: Profile = serde_json::from_str(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["personality"],"action":"SCMP_ACT_ERRNO",
        "errnoRet":38,"args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":3,"op":"SCMP_CMP_EQ"}]}]}"#,
    )
    .unwrap();
    let program = compile(&profile).unwrap();
    let number = Abi::native().number("personality").unwrap();
    let says = |arg| run(&program, Call { arch: Abi::native().audit_arch(), number, args: [arg; 6] });
    assert_eq!([says(1), says(2), says(3)].map(|s| s == libc::SECCOMP_RET_ALLOW), [false, true, false]);
}

#[test]
fn a_seventh_argument_is_refused() {
    let profile: Profile = serde_json::from_str(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL",
        "args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]}"#,
    )
    .unwrap();
    assert_eq!(compile(&profile), Err(CompileError::Argument { name: "read".to_owned(), index: 6 }));
}
