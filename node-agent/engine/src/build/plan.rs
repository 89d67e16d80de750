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
    /// The platform that was asked for, if this machine does not build for it: fails the stage if it is needed.
    pub(super) foreign: Option<String>,
    /// Whether the result stands on it.
    pub(super) needed: bool,
}

impl Stage {
    /// What a stage is called; one without a name after its number.
    pub(super) fn shown(&self, index: usize) -> String {
        self.name.clone().unwrap_or_else(|| format!("stage-{index}"))
    }

    fn is_called(&self, name: &str) -> bool {
        self.name.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(name))
    }
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
        global_args.insert("TARGETSTAGE".to_owned(), target_name(&file, target));
        let mut stages: Vec<Stage> = Vec::new();
        for instruction in file.instructions {
            let line = instruction.line;
            let expanded = |text: &str, args: &BTreeMap<String, String>| {
                expand(text, file.escape, &|name| args.get(name).cloned()).map_err(|message| fail(line, message))
            };
            match (&instruction.op, stages.last_mut()) {
                (Op::From { image, platform, name }, _) => {
                    let foreign = match platform {
                        Some(text) => foreign(text, &expanded(text, &global_args)?).map_err(|said| fail(line, said))?,
                        None => None,
                    };
                    let from = expanded(image, &global_args)?;
                    if from.is_empty() {
                        return Err(fail(line, format!("base name ({image}) should not be blank")));
                    }
                    let (base, name, instructions) = (base(&from, &stages), name.clone(), Vec::new());
                    stages.push(Stage { from: instruction, base, name, instructions, foreign, needed: false });
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
        plan.check_order()?;
        Ok(plan)
    }

    /// Nothing comes from a stage that is begun later.
    fn check_order(&self) -> Result<(), Fail> {
        for (at, stage) in self.stages.iter().enumerate().filter(|(_, stage)| stage.needed) {
            for instruction in &stage.instructions {
                for from in origins(&instruction.op) {
                    let fault = self.order_fault(at, from);
                    fault.map_or(Ok(()), |message| Err(fail(instruction.line, message)))?;
                }
            }
        }
        Ok(())
    }

    fn order_fault(&self, at: usize, from: &str) -> Option<String> {
        match (from.parse::<usize>(), self.source(at, from)) {
            (_, Base::Stage(_) | Base::Scratch) => return None,
            (Ok(index), _) if index >= self.stages.len() => return Some(format!("invalid stage index {index}")),
            (Err(_), _) if !self.stages.iter().any(|stage| stage.is_called(from)) => return None,
            _ => {}
        }
        let here = self.stages.get(at).map(|stage| stage.shown(at)).unwrap_or_default();
        Some(format!("cannot copy from stage {from:?}, it needs to be defined before current stage {here:?}"))
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
            let sources = stage.instructions.iter().flat_map(|instruction| origins(&instruction.op));
            let sources = sources.map(|from| self.source(index, from)).collect::<Vec<_>>().into_iter();
            let bases = sources.chain([stage.base.clone()]);
            needed.extend(bases.filter_map(|base| if let Base::Stage(index) = base { Some(index) } else { None }));
        }
    }
}

/// Stages and images that an instruction takes files from.
fn origins(op: &Op) -> Vec<&str> {
    match op {
        Op::Copy(Files { from: Some(from), .. }) => vec![from],
        Op::Run(Run { mounts, .. }) => mounts.iter().filter_map(origin).collect(),
        _ => Vec::new(),
    }
}

fn base(name: &str, earlier: &[Stage]) -> Base {
    match earlier.iter().rposition(|stage| stage.is_called(name)) {
        Some(index) => Base::Stage(index),
        None if name == "scratch" => Base::Scratch,
        None => Base::Image(name.to_owned()),
    }
}

fn find_target(stages: &[Stage], target: Option<&str>) -> Result<usize, Fail> {
    let last = stages.len().saturating_sub(1);
    let Some(target) = target else { return Ok(last) };
    let by_name = stages.iter().rposition(|stage| stage.is_called(target));
    let by_index = || target.parse().ok().filter(|index| *index <= last);
    by_name.or_else(by_index).ok_or_else(|| fail(1, format!("target stage {target:?} could not be found")))
}

/// What `ARG TARGETSTAGE` says.
fn target_name(file: &Dockerfile, target: Option<&str>) -> String {
    let last = || match file.instructions.iter().rev().find(|instruction| matches!(instruction.op, Op::From { .. })) {
        Some(Instruction { op: Op::From { name, .. }, .. }) => name.clone(),
        _ => None,
    };
    target.map(str::to_owned).or_else(last).unwrap_or_else(|| "default".to_owned())
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

/// A platform, unless it is this machine's in one of its names.
fn foreign(written: &str, platform: &str) -> Result<Option<String>, String> {
    if platform.is_empty() {
        return Err(format!("empty platform value from expression {written}"));
    }
    let lower = platform.to_ascii_lowercase();
    let mut parts = lower.split('/');
    let (os, arch) = match (parts.next(), parts.next()) {
        (Some(os), Some(arch)) => (os, arch),
        // Alone it may be either.
        (Some("linux"), None) => ("linux", architecture()),
        (Some(arch), None) => ("linux", arch),
        _ => ("", ""),
    };
    let arch = match arch {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let variant = parts.next().is_none_or(|variant| matches!((arch, variant), ("amd64", "v1") | ("arm64", "v8")));
    let ours = os == "linux" && arch == architecture() && variant && parts.next().is_none();
    Ok((!ours).then(|| platform.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::dockerfile::parse;
    use super::*;

    fn plan(text: &str, target: Option<&str>) -> Result<Plan, Fail> {
        Plan::new(parse(text).unwrap(), &BTreeMap::new(), target)
    }

    #[test]
    fn a_platform_has_several_names() {
        let ours = architecture();
        let other = if ours == "amd64" { "arm64" } else { "amd64" };
        let long = if ours == "amd64" { "linux/x86_64" } else { "linux/aarch64" };
        for platform in ["linux", ours, long, &format!("linux/{ours}"), &format!("Linux/{ours}")] {
            assert_eq!(foreign("$P", platform), Ok(None), "{platform}");
        }
        for platform in [other, "windows/amd64", "linux/amd64/v3", "linux/arm/v7", &format!("linux/{other}")] {
            assert_eq!(foreign("$P", platform), Ok(Some(platform.to_owned())));
        }
        assert_eq!(foreign("$P", ""), Err("empty platform value from expression $P".to_owned()));
    }

    #[test]
    fn stages_take_from_earlier_ones_only() {
        let later = "FROM a AS one\nCOPY --from=two /x /\nFROM b AS two\nFROM one\n";
        let failed = plan(later, None).unwrap_err();
        let words = "cannot copy from stage \"two\", it needs to be defined before current stage \"one\"";
        assert_eq!(failed, fail(2, words));
        assert!(plan(later, Some("two")).is_ok(), "what is not needed is not looked at");
        let failed = plan("FROM a\nRUN --mount=from=3,target=/x y\n", None).unwrap_err();
        assert_eq!(failed, fail(2, "invalid stage index 3"));
        let failed = plan("FROM a\nCOPY --from=0 /x /\n", None).unwrap_err();
        assert!(failed.message.ends_with("it needs to be defined before current stage \"stage-0\""), "{failed:?}");
        let twice = plan("FROM a AS x\nFROM b AS X\nFROM c\nCOPY --from=x /x /\n", Some("x")).unwrap();
        assert_eq!((twice.target, twice.source(2, "x")), (1, Base::Stage(1)));
        let blank = plan("FROM $NONE\n", None).unwrap_err();
        assert_eq!(blank.message, "base name ($NONE) should not be blank");
    }

    #[test]
    fn the_stage_that_is_built_is_known_by_name() {
        let stage = |text, target| plan(text, target).unwrap().global_args["TARGETSTAGE"].clone();
        assert_eq!(stage("FROM a AS x\nFROM b\n", None), "default");
        assert_eq!(stage("FROM a AS x\nFROM b AS y\n", None), "y");
        assert_eq!(stage("FROM a AS x\nFROM b AS y\n", Some("x")), "x");
    }
}
