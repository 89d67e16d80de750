//! What a Dockerfile asks for: its stages, what each stands on, and which of them the result needs. Pure.

use std::collections::BTreeMap;

use super::dockerfile::{Dockerfile, Files, Instruction, Op, Run};
use super::mounts::origin;
use super::words::expand;
use super::{Fail, fail};
use crate::images::manifest::architecture;

/// What a stage starts from, or files are copied from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Base {
    Scratch,
    /// An earlier stage.
    Stage(usize),
    /// An image's name, as written.
    Image(String),
}

/// FROM and what follows it.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) from: Instruction,
    pub(super) base: Base,
    pub(super) name: Option<String>,
    pub(super) instructions: Vec<Instruction>,
    /// Whether the result stands on it.
    pub(super) needed: bool,
}

/// All stages and the values that hold in every one.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) stages: Vec<Stage>,
    /// The stage that becomes the image.
    pub(super) target: usize,
    /// ARGs before the first FROM, and what Docker sets by itself: a stage sees them after its own `ARG NAME`.
    pub(super) global_args: BTreeMap<String, String>,
}

impl Plan {
    /// Sorts the instructions into stages and refuses what cannot be built.
    pub(super) fn new(
        file: Dockerfile,
        build_args: &BTreeMap<String, String>,
        target: Option<&str>,
    ) -> Result<Self, Fail> {
        let mut global_args = platform_args();
        let mut stages: Vec<Stage> = Vec::new();
        for instruction in file.instructions {
            let line = instruction.line;
            let expanded = |text: &str, args: &BTreeMap<String, String>| {
                expand(text, file.escape, &|name| args.get(name).cloned()).map_err(|message| fail(line, message))
            };
            match (&instruction.op, stages.last_mut()) {
                (Op::From { image, platform, name }, _) => {
                    let platform = platform.as_deref().map(|platform| expanded(platform, &global_args)).transpose()?;
                    check_platform(line, platform)?;
                    let base = base(&expanded(image, &global_args)?, &stages);
                    let name = name.clone();
                    stages.push(Stage { from: instruction, base, name, instructions: Vec::new(), needed: false });
                }
                (Op::Arg(args), None) => {
                    for (name, default) in args {
                        let default = default.as_deref().map(|default| expanded(default, &global_args)).transpose()?;
                        if let Some(value) = build_args.get(name).cloned().or(default) {
                            global_args.insert(name.clone(), value);
                        }
                    }
                }
                (_, Some(stage)) => stage.instructions.push(instruction),
                // The parser lets nothing else come before the first FROM.
                (_, None) => return Err(fail(line, "the first instruction must be FROM")),
            }
        }
        let target = find_target(&stages, target)?;
        let mut plan = Self { stages, target, global_args };
        plan.mark(target);
        Ok(plan)
    }

    /// Where `--from=NAME` of stage `at` leads.
    pub(super) fn source(&self, at: usize, from: &str) -> Base {
        let earlier = self.stages.get(..at).unwrap_or_default();
        match from.parse::<usize>() {
            Ok(index) if index < at => Base::Stage(index),
            _ => base(from, earlier),
        }
    }

    /// Stages stand on earlier ones only, so one pass from the target down finds all.
    fn mark(&mut self, target: usize) {
        let mut needed = vec![target];
        while let Some(index) = needed.pop() {
            let Some(stage) = self.stages.get_mut(index) else { continue };
            if std::mem::replace(&mut stage.needed, true) {
                continue;
            }
            let Some(stage) = self.stages.get(index) else { continue };
            let sources = stage.instructions.iter().flat_map(|instruction| match &instruction.op {
                Op::Copy(Files { from: Some(from), .. }) => vec![self.source(index, from)],
                Op::Run(Run { mounts, .. }) => {
                    mounts.iter().filter_map(origin).map(|from| self.source(index, from)).collect()
                }
                _ => Vec::new(),
            });
            let bases = sources.chain([stage.base.clone()]);
            needed.extend(bases.filter_map(|base| if let Base::Stage(index) = base { Some(index) } else { None }));
        }
    }
}

fn base(name: &str, earlier: &[Stage]) -> Base {
    let lower = name.to_ascii_lowercase();
    match earlier.iter().rposition(|stage| stage.name.as_ref() == Some(&lower)) {
        Some(index) => Base::Stage(index),
        None if name == "scratch" => Base::Scratch,
        None => Base::Image(name.to_owned()),
    }
}

fn find_target(stages: &[Stage], target: Option<&str>) -> Result<usize, Fail> {
    let last = stages.len().saturating_sub(1);
    let Some(target) = target else { return Ok(last) };
    let lower = target.to_ascii_lowercase();
    let by_name = stages.iter().position(|stage| stage.name.as_ref() == Some(&lower));
    let by_index = || target.parse().ok().filter(|index| *index <= last);
    by_name.or_else(by_index).ok_or_else(|| fail(1, format!("target stage {target:?} could not be found")))
}

fn platform_args() -> BTreeMap<String, String> {
    let platform = format!("linux/{}", architecture());
    let mut args = BTreeMap::new();
    for side in ["TARGET", "BUILD"] {
        args.insert(format!("{side}PLATFORM"), platform.clone());
        args.insert(format!("{side}OS"), "linux".to_owned());
        args.insert(format!("{side}ARCH"), architecture().to_owned());
        args.insert(format!("{side}VARIANT"), String::new());
    }
    args
}

fn check_platform(line: usize, platform: Option<String>) -> Result<(), Fail> {
    let ours = format!("linux/{}", architecture());
    match platform {
        Some(other) if other != ours && other != "linux" => {
            Err(fail(line, format!("platform {other} is not supported: this machine builds for {ours}")))
        }
        _ => Ok(()),
    }
}
