//! From a profile to the kernel's classic BPF.
//!
//! Per architecture the call's number is looked up in a binary tree over ranges of numbers with one fate: some
//! eight comparisons per call, whatever the profile's length. Calls newer than every call a profile names fail
//! with `ENOSYS`, not with the profile's error: C libraries take that as "use the older call" (as runc does).

use std::collections::BTreeMap;

use super::profile::{Action, Condition, Operator, Profile, Rule};
use super::table::Abi;
use crate::supervisor::plan::BpfProgram;

/// Most instructions the kernel takes (`BPF_MAXINSNS`).
const PROGRAM_LEN_MAX: usize = 4096;

pub(super) const LOAD: u16 = 0x20;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_GREATER: u16 = 0x25;
pub(super) const JUMP_GREATER_EQUAL: u16 = 0x35;
pub(super) const AND: u16 = 0x54;
pub(super) const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
pub(super) const NUMBER_AT: u32 = 0;
pub(super) const ARCH_AT: u32 = 4;
pub(super) const ARGS_AT: u32 = 16;

/// Why a profile cannot be compiled: its author's fault.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CompileError {
    /// A rule asks for an argument that no call has.
    #[error("seccomp rule for {name:?} compares argument {index}, but a system call has only 6")]
    Argument {
        /// The call.
        name: String,
        /// The argument.
        index: u8,
    },
    /// The program does not fit.
    #[error("seccomp profile is too long: {len} instructions, the kernel takes {PROGRAM_LEN_MAX}")]
    TooLong {
        /// Its length.
        len: usize,
    },
}

/// Compiles a profile for this machine and the further architectures the profile names.
///
/// # Errors
/// See [`CompileError`].
pub fn compile(profile: &Profile) -> Result<BpfProgram, CompileError> {
    let mut program = Assembler::default();
    let further = profile.architectures.iter().filter_map(|name| Abi::secondary(name));
    let mut families: BTreeMap<u32, Vec<Abi>> = BTreeMap::new();
    for abi in further.chain([Abi::native()]) {
        let family = families.entry(abi.audit_arch()).or_default();
        if !family.contains(&abi) {
            family.push(abi);
        }
    }
    program.emit(LOAD, ARCH_AT);
    for (arch, abis) in families {
        let next = program.label();
        program.jump_unless(JUMP_EQUAL, arch, next);
        program.emit(LOAD, NUMBER_AT);
        program.tree(&fates(profile, &abis)?);
        program.place(next);
    }
    // An architecture that nobody asked for: libseccomp kills, too.
    program.emit(RETURN, libc::SECCOMP_RET_KILL_THREAD);
    program.finish()
}

/// What happens to one call.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fate {
    /// Checked in order; the first whose conditions all hold decides.
    conditional: Vec<(Vec<Condition>, u32)>,
    /// Otherwise.
    otherwise: u32,
}

/// Ranges of numbers with one fate, by their first number; the first starts at 0.
fn fates(profile: &Profile, abis: &[Abi]) -> Result<Vec<(u32, Fate)>, CompileError> {
    let default = profile.default_action.code(profile.default_errno_ret);
    let plain = |otherwise| Fate { conditional: Vec::new(), otherwise };
    let mut ranges = vec![(0, plain(default))];
    let mut abis = abis.to_vec();
    abis.sort_by_key(|abi| abi.number("read"));
    for abi in abis {
        let calls = calls(profile, abi, default)?;
        let Some(last) = calls.keys().next_back().copied() else { continue };
        for (number, fate) in calls {
            ranges.push((number, fate));
            ranges.push((number + 1, plain(default)));
        }
        if matches!(profile.default_action, Action::Errno) {
            ranges.push((last + 1, plain(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned())));
        }
    }
    Ok(merge(ranges))
}

/// Keeps the last word on each first number, and joins neighbours with one fate.
fn merge(ranges: Vec<(u32, Fate)>) -> Vec<(u32, Fate)> {
    let by_start: BTreeMap<u32, Fate> = ranges.into_iter().collect();
    let mut merged: Vec<(u32, Fate)> = Vec::new();
    for (start, fate) in by_start {
        if merged.last().is_none_or(|(_, last)| *last != fate) {
            merged.push((start, fate));
        }
    }
    merged
}

/// The fate of each call that the profile names.
fn calls(profile: &Profile, abi: Abi, default: u32) -> Result<BTreeMap<u32, Fate>, CompileError> {
    let mut calls: BTreeMap<u32, (Fate, bool)> = BTreeMap::new();
    for rule in &profile.syscalls {
        let code = rule.action.code(rule.errno_ret);
        for name in &rule.names {
            let Some(number) = abi.number(name) else { continue };
            let blank = Fate { conditional: Vec::new(), otherwise: default };
            let (fate, decided) = calls.entry(number).or_insert((blank, false));
            if rule.args.is_empty() {
                // The first unconditional rule stands, as in libseccomp.
                if !*decided {
                    (fate.otherwise, *decided) = (code, true);
                }
            } else {
                let alternatives = alternatives(rule, name)?;
                fate.conditional.extend(alternatives.into_iter().map(|conditions| (conditions, code)));
            }
        }
    }
    Ok(calls.into_iter().map(|(number, (fate, _))| (number, fate)).collect())
}

/// Conditions that must hold together; several on one argument become alternatives of one condition each.
fn alternatives(rule: &Rule, name: &str) -> Result<Vec<Vec<Condition>>, CompileError> {
    if let Some(condition) = rule.args.iter().find(|condition| condition.index > 5) {
        return Err(CompileError::Argument { name: name.to_owned(), index: condition.index });
    }
    let mut seen = [false; 6];
    let repeated = rule
        .args
        .iter()
        .any(|condition| seen.get_mut(usize::from(condition.index)).is_some_and(|seen| std::mem::replace(seen, true)));
    Ok(if repeated { rule.args.iter().map(|condition| vec![*condition]).collect() } else { vec![rule.args.clone()] })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Label(usize);

/// Instructions with symbolic jumps.
#[derive(Debug, Default)]
struct Assembler {
    instructions: Vec<Instruction>,
    /// Where each label is placed.
    labels: Vec<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Instruction {
    code: u16,
    operand: u32,
    /// Where to go when the comparison holds; the next instruction when `None`. Also the goal of a plain jump.
    then: Option<Label>,
    /// Where to go when it does not.
    otherwise: Option<Label>,
}

impl Assembler {
    fn label(&mut self) -> Label {
        self.labels.push(usize::MAX);
        Label(self.labels.len() - 1)
    }

    fn place(&mut self, label: Label) {
        let here = self.instructions.len();
        if let Some(place) = self.labels.get_mut(label.0) {
            *place = here;
        }
    }

    fn emit(&mut self, code: u16, operand: u32) {
        self.instructions.push(Instruction { code, operand, then: None, otherwise: None });
    }

    fn jump_if(&mut self, code: u16, operand: u32, goal: Label) {
        self.instructions.push(Instruction { code, operand, then: Some(goal), otherwise: None });
    }

    /// Conditional jumps reach 255 instructions only, so the far one is a plain jump that is stepped over.
    fn jump_unless(&mut self, code: u16, operand: u32, goal: Label) {
        let near = self.label();
        self.jump_if(code, operand, near);
        self.instructions.push(Instruction { code: JUMP, operand: 0, then: Some(goal), otherwise: None });
        self.place(near);
    }

    /// Decides by the number in the accumulator.
    fn tree(&mut self, ranges: &[(u32, Fate)]) {
        match ranges {
            [] => {}
            [(_, fate)] => self.fate(fate),
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let start = high.first().map_or(0, |(start, _)| *start);
                let lower = self.label();
                self.jump_unless(JUMP_GREATER_EQUAL, start, lower);
                self.tree(high);
                self.place(lower);
                self.tree(low);
            }
        }
    }

    fn fate(&mut self, fate: &Fate) {
        for (conditions, code) in &fate.conditional {
            let next = self.label();
            for condition in conditions {
                self.condition(*condition, next);
            }
            self.emit(RETURN, *code);
            self.place(next);
        }
        self.emit(RETURN, fate.otherwise);
    }

    /// Goes on when the condition holds, else to `next`. Arguments are compared in two halves.
    fn condition(&mut self, condition: Condition, next: Label) {
        let Condition { index, value, value_two, op } = condition;
        let low_at = ARGS_AT + 8 * u32::from(index) + if cfg!(target_endian = "big") { 4 } else { 0 };
        let high_at = low_at ^ 4;
        let (high, low) = halves(value);
        let holds = self.label();
        self.emit(LOAD, high_at);
        match op {
            Operator::Equal => {
                self.jump_unless(JUMP_EQUAL, high, next);
                self.emit(LOAD, low_at);
                self.jump_unless(JUMP_EQUAL, low, next);
            }
            Operator::NotEqual => {
                self.jump_unless(JUMP_EQUAL, high, holds);
                self.emit(LOAD, low_at);
                self.jump_if(JUMP_EQUAL, low, next);
            }
            Operator::Greater | Operator::GreaterOrEqual => {
                self.jump_if(JUMP_GREATER, high, holds);
                self.jump_unless(JUMP_EQUAL, high, next);
                self.emit(LOAD, low_at);
                let code = if op == Operator::Greater { JUMP_GREATER } else { JUMP_GREATER_EQUAL };
                self.jump_unless(code, low, next);
            }
            Operator::Less | Operator::LessOrEqual => {
                self.jump_if(JUMP_GREATER, high, next);
                self.jump_unless(JUMP_EQUAL, high, holds);
                self.emit(LOAD, low_at);
                let code = if op == Operator::Less { JUMP_GREATER_EQUAL } else { JUMP_GREATER };
                self.jump_if(code, low, next);
            }
            Operator::MaskedEqual => {
                let (high_wanted, low_wanted) = halves(value_two);
                self.emit(AND, high);
                self.jump_unless(JUMP_EQUAL, high_wanted, next);
                self.emit(LOAD, low_at);
                self.emit(AND, low);
                self.jump_unless(JUMP_EQUAL, low_wanted, next);
            }
        }
        self.place(holds);
    }

    fn finish(self) -> Result<BpfProgram, CompileError> {
        let len = self.instructions.len();
        let too_long = CompileError::TooLong { len };
        if len > PROGRAM_LEN_MAX {
            return Err(too_long);
        }
        let mut bytes = Vec::with_capacity(len * 8);
        for (at, instruction) in self.instructions.iter().enumerate() {
            let distance = |label: Option<Label>| match label {
                None => Some(0),
                Some(Label(label)) => self.labels.get(label)?.checked_sub(at + 1),
            };
            let Some((then, otherwise)) = distance(instruction.then).zip(distance(instruction.otherwise)) else {
                return Err(too_long);
            };
            let (operand, then) = if instruction.code == JUMP {
                (u32::try_from(then).unwrap_or(u32::MAX), 0)
            } else {
                (instruction.operand, then)
            };
            let Ok((then, otherwise)) = u8::try_from(then).and_then(|t| u8::try_from(otherwise).map(|o| (t, o))) else {
                return Err(too_long);
            };
            bytes.extend_from_slice(&instruction.code.to_ne_bytes());
            bytes.extend_from_slice(&[then, otherwise]);
            bytes.extend_from_slice(&operand.to_ne_bytes());
        }
        Ok(BpfProgram(bytes))
    }
}

/// High and low 32 bits.
pub(super) fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}
