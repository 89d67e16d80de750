//! v2 has no device files: a BPF program of ours, attached to the group, says which devices may be used.
//!
//! Source: bpf(2), `linux/bpf.h` (`struct bpf_cgroup_dev_ctx`). The program lives as long as the group.

#![allow(unsafe_code, reason = "bpf(2) has no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use super::limits::DeviceRule;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;

/// Instructions: `BPF_LDX|BPF_MEM|BPF_W`, and ALU and jump operations with an immediate.
const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbf;
const MOVE: u8 = 0xb7;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// Registers: the result, the context, and what is read from it.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// One eBPF instruction.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high half.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Attributes of `BPF_PROG_LOAD`, as far as needed.
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
}

/// Attributes of `BPF_PROG_ATTACH`, as far as needed.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a filter that allows exactly `rules` to a v2 group.
pub(super) fn attach(group: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    let instructions = program(rules);
    let load = LoadAttributes {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
    };
    // SAFETY: the attributes point to memory that lives through the call.
    let program = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<LoadAttributes>()) };
    let program = i32::try_from(program).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: a new descriptor that nobody else owns.
    let program = unsafe { OwnedFd::from_raw_fd(program) };
    let group = std::fs::File::open(group)?;
    let attach = AttachAttributes {
        target: group.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        attach_type: BPF_CGROUP_DEVICE,
        flags: 0,
    };
    // SAFETY: as above.
    let attached =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, size_of::<AttachAttributes>()) };
    if attached < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Rule by rule: what does not match jumps to the next; the end refuses. The kernel takes no program with instructions
/// that are never reached, so one that allows everything is the last.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut code = vec![
        with_register(LOAD_WORD, KIND, CONTEXT, 0),
        with_register(MOVE_REGISTER, ACCESS, KIND, 0),
        instruction(AND, KIND, 0, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 0, 16),
        with_register(LOAD_WORD, MAJOR, CONTEXT, 4),
        with_register(LOAD_WORD, MINOR, CONTEXT, 8),
    ];
    for rule in rules {
        let checks = checks(rule);
        let len = checks.len();
        for (at, mut check) in checks.into_iter().enumerate() {
            if check.code == JUMP_NOT_EQUAL {
                // Past the remaining checks and the two instructions that allow.
                check.offset = i16::try_from(len - at + 1).unwrap_or(i16::MAX);
            }
            code.push(check);
        }
        code.push(instruction(MOVE, RESULT, 0, 1));
        code.push(instruction(EXIT, 0, 0, 0));
        if len == 0 {
            return code;
        }
    }
    code.push(instruction(MOVE, RESULT, 0, 0));
    code.push(instruction(EXIT, 0, 0, 0));
    code
}

fn checks(rule: &DeviceRule) -> Vec<Instruction> {
    let mut checks = Vec::new();
    match rule.kind {
        'b' => checks.push(instruction(JUMP_NOT_EQUAL, KIND, 0, 1)),
        'c' => checks.push(instruction(JUMP_NOT_EQUAL, KIND, 0, 2)),
        _ => {}
    }
    let allowed = rule.permissions.chars().fold(0, |bits, c| bits | access_bit(c));
    if allowed != 7 {
        checks.push(with_register(MOVE_REGISTER, SCRATCH, ACCESS, 0));
        checks.push(instruction(AND, SCRATCH, 0, 7 & !allowed));
        checks.push(instruction(JUMP_NOT_EQUAL, SCRATCH, 0, 0));
    }
    let equals = |register, number: u32| instruction(JUMP_NOT_EQUAL, register, 0, number.cast_signed());
    checks.extend(rule.major.map(|major| equals(MAJOR, major)));
    checks.extend(rule.minor.map(|minor| equals(MINOR, minor)));
    checks
}

/// `BPF_DEVCG_ACC_*`
fn access_bit(permission: char) -> i32 {
    match permission {
        'm' => 1,
        'r' => 2,
        'w' => 4,
        _ => 0,
    }
}

fn instruction(code: u8, destination: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: destination, offset, immediate }
}

fn with_register(code: u8, destination: u8, source: u8, offset: i16) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset, immediate: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::cgroup::Hierarchies;
    use crate::runtime::cgroup::limits::device_rules;

    /// The kernel's verifier is the judge, and an open in the group the proof.
    #[test]
    fn the_kernel_takes_the_filter_and_refuses_other_devices() {
        for (privileged, ends) in [(false, 0), (true, 3)] {
            let Some(code) = tried(&device_rules(&[], privileged)) else { return };
            assert_eq!(code, Some(ends), "privileged: {privileged}");
        }
    }

    /// How a script ends that is bound by a filter; 3 where it may use what no container may.
    fn tried(rules: &[DeviceRule]) -> Option<Option<i32>> {
        let Some(unified) =
            Hierarchies::read().ok().and_then(|h| h.unified).filter(|_| nix::unistd::geteuid().is_root())
        else {
            eprintln!("SKIPPED: needs root and a v2 cgroup mount");
            return None;
        };
        let group = unified.base.join(format!("reeve-test-devices-{}", std::process::id()));
        std::fs::create_dir(&group).unwrap();
        let attached = attach(&group, rules);
        let script = format!(
            "echo $$ > {}/cgroup.procs; : </dev/null || exit 1; : </dev/zero || exit 2; \
             (: </dev/mem) 2>/dev/null && exit 3; \
             (: </dev/kmsg) 2>/dev/null && exit 3; exit 0",
            group.display()
        );
        let status = std::process::Command::new("/bin/sh").arg("-c").arg(script).status();
        std::fs::remove_dir(&group).unwrap();
        attached.unwrap();
        Some(status.unwrap().code())
    }
}
