//! Reads a Dockerfile: lines, directives, instructions and their forms. Pure; variables are expanded later, when
//! the environment is known.
//!
//! Source: the Dockerfile reference, "Format", "Parser directives", and each instruction's section.

use std::collections::BTreeMap;

use super::heredoc::{Heredoc, Lines};
use super::mounts::{self, Fields};
use super::words;
use super::{Fail, fail};

/// One instruction.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Instruction {
    /// Line it starts at, from 1.
    pub(super) line: usize,
    /// As it was written, on one line: for progress and history.
    pub(super) text: String,
    /// What it does.
    pub(super) op: Op,
}

/// What an instruction does, its words not expanded yet.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Op {
    /// Begins a stage.
    From {
        image: String,
        platform: Option<String>,
        name: Option<String>,
    },
    /// Names that `--build-arg` sets, with defaults.
    Arg(Vec<(String, Option<String>)>),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Copy(Files),
    Add(Files),
    Workdir(String),
    User(String),
    Expose(Vec<String>),
    Volume(Vec<String>),
    StopSignal(String),
    Entrypoint(Command),
    Cmd(Command),
    Shell(Vec<String>),
    Healthcheck(Health),
    Maintainer(String),
    Run(Run),
    /// An instruction for those who build on this image.
    OnBuild(String),
}

/// RUN's words.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Run {
    pub(super) command: Command,
    pub(super) mounts: Vec<Fields>,
    /// `--network=none`: no network but `lo`.
    pub(super) offline: bool,
    /// `--security=insecure`: refused, if the result needs it.
    pub(super) privileged: bool,
    pub(super) heredocs: Vec<Heredoc>,
}

/// COPY's and ADD's words.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Files {
    pub(super) from: Option<String>,
    pub(super) chown: Option<String>,
    pub(super) chmod: Option<String>,
    /// What ADD must find: `sha256:…`.
    pub(super) checksum: Option<String>,
    /// ADD of a repository: with its `.git`.
    pub(super) keep_git_dir: bool,
    /// ADD: whether archives are unpacked; unsaid, those of the context are and those from the web are not.
    pub(super) unpack: Option<bool>,
    /// Patterns of what is left out.
    pub(super) excludes: Vec<String>,
    /// The folders on the way to a source are made in the image, too.
    pub(super) parents: bool,
    pub(super) sources: Vec<String>,
    /// Those sources that stand in the Dockerfile.
    pub(super) heredocs: Vec<Heredoc>,
    pub(super) dest: String,
}

/// A command line in one of its two forms.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Command {
    Exec(Vec<String>),
    Shell(String),
}

/// HEALTHCHECK's words.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Health {
    /// `None` for `HEALTHCHECK NONE`.
    pub(super) command: Option<Command>,
    /// `--interval=30s` and the like.
    pub(super) flags: BTreeMap<String, String>,
}

/// A whole file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Dockerfile {
    pub(super) escape: char,
    /// In order; the first that is not ARG is FROM.
    pub(super) instructions: Vec<Instruction>,
}

/// Parses a whole file. Everything that can be known to be wrong without running is refused here.
pub(super) fn parse(text: &str) -> Result<Dockerfile, Fail> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let escape = directives(text)?;
    let mut instructions: Vec<Instruction> = Vec::new();
    let mut lines = Lines::new(text, escape);
    while let Some((line, text)) = lines.next() {
        let heredocs = lines.heredocs(&text).map_err(|message| fail(line, message))?;
        let op = operation(&text, heredocs, escape).map_err(|message| fail(line, message))?;
        let in_stage = instructions.iter().any(|other| matches!(other.op, Op::From { .. }));
        if !in_stage && !matches!(op, Op::From { .. } | Op::Arg(_)) {
            return Err(fail(line, "no build stage in current context: the first instruction must be FROM"));
        }
        instructions.push(Instruction { line, text, op });
    }
    if !instructions.iter().any(|instruction| matches!(instruction.op, Op::From { .. })) {
        return Err(fail(1, "file with no instructions: there must be a FROM"));
    }
    Ok(Dockerfile { escape, instructions })
}

/// `# escape=X` and others at the very top; the first comment that is none of them ends them. Answers the escape
/// character.
fn directives(text: &str) -> Result<char, Fail> {
    let (mut escape, mut seen) = ('\\', Vec::new());
    for (index, line) in text.lines().enumerate() {
        let Some(comment) = line.trim_start().strip_prefix('#') else { break };
        let Some((key, value)) = comment.split_once('=') else { break };
        let key = key.trim().to_ascii_lowercase();
        if !matches!(key.as_str(), "syntax" | "escape" | "check") {
            break;
        }
        if key == "escape" {
            escape = match value.trim() {
                "\\" => '\\',
                "`" => '`',
                other => return Err(fail(index + 1, format!("invalid ESCAPE {other:?}: it must be \\ or `"))),
            };
        }
        if seen.contains(&key) {
            return Err(fail(index + 1, format!("only one {key} parser directive can be used")));
        }
        seen.push(key);
    }
    Ok(escape)
}

/// An instruction that an image has for those who build on it.
pub(super) fn trigger(text: &str, escape: char) -> Result<Op, String> {
    let mut lines = Lines::new(text, escape);
    let Some((_, line)) = lines.next() else { return Err("empty trigger".to_owned()) };
    let heredocs = lines.heredocs(&line)?;
    operation(&line, heredocs, escape)
}

/// Flags that an instruction takes.
fn allowed_flags(keyword: &str) -> &'static [&'static str] {
    match keyword {
        "FROM" => &["platform"],
        "COPY" => &["from", "chown", "chmod", "link", "exclude", "parents"],
        "ADD" => &["chown", "chmod", "link", "checksum", "exclude", "keep-git-dir", "unpack"],
        "RUN" => &["mount", "network", "security"],
        "HEALTHCHECK" => &["interval", "timeout", "start-period", "start-interval", "retries"],
        _ => &[],
    }
}

fn operation(text: &str, heredocs: Vec<Heredoc>, escape: char) -> Result<Op, String> {
    let (keyword, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let keyword = keyword.to_ascii_uppercase();
    let keyword = keyword.as_str();
    let (flags, rest) = if keyword == "ONBUILD" { (Flags::default(), rest.trim()) } else { flags(rest.trim())? };
    if rest.is_empty() {
        return Err(format!("{keyword} requires at least one argument"));
    }
    flags.check(keyword)?;
    Ok(match keyword {
        "FROM" => from(flags, rest)?,
        "ARG" => Op::Arg(words::split(rest, escape).iter().map(|word| argument(word)).collect()),
        "ENV" => Op::Env(pairs("ENV", rest, escape)?),
        "LABEL" => Op::Label(pairs("LABEL", rest, escape)?),
        "COPY" => Op::Copy(files(keyword, flags, rest, heredocs)?),
        "ADD" => Op::Add(files(keyword, flags, rest, heredocs)?),
        "WORKDIR" => Op::Workdir(rest.to_owned()),
        "USER" => Op::User(one("USER", rest)?),
        "EXPOSE" => Op::Expose(rest.split_whitespace().map(str::to_owned).collect()),
        "VOLUME" => Op::Volume(at_least_one(keyword, json(rest)?.unwrap_or_else(|| words_of(rest)))?),
        "STOPSIGNAL" => Op::StopSignal(one("STOPSIGNAL", rest)?),
        "ENTRYPOINT" => Op::Entrypoint(command(rest)?),
        "CMD" => Op::Cmd(command(rest)?),
        "SHELL" => match json(rest)? {
            Some(words) => Op::Shell(at_least_one(keyword, words)?),
            None => return Err("SHELL requires the arguments to be in JSON form".to_owned()),
        },
        "HEALTHCHECK" => health(flags.into_map(), rest)?,
        "MAINTAINER" => Op::Maintainer(rest.to_owned()),
        "RUN" => Op::Run(run(flags, command(rest)?, heredocs)?),
        "ONBUILD" => on_build(rest, heredocs, escape)?,
        other => return Err(format!("unknown instruction: {other}")),
    })
}

/// Flags in order; some may come several times.
#[derive(Debug, Default)]
struct Flags(Vec<(String, String)>);

impl Flags {
    fn check(&self, keyword: &str) -> Result<(), String> {
        for (at, (name, _)) in self.0.iter().enumerate() {
            if !allowed_flags(keyword).contains(&name.as_str()) {
                return Err(format!("unknown flag: --{name} of {keyword}"));
            }
            let repeats = matches!(name.as_str(), "mount" | "exclude");
            if !repeats && self.0.iter().take(at).any(|(other, _)| other == name) {
                return Err(format!("duplicate flag specified: --{name}"));
            }
        }
        Ok(())
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.remove(at).1)
    }

    /// One that is on or off; alone it is on.
    fn switch(&mut self, name: &str) -> Result<Option<bool>, String> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_str() {
            "true" | "True" | "TRUE" | "t" | "T" | "1" => Ok(Some(true)),
            "false" | "False" | "FALSE" | "f" | "F" | "0" => Ok(Some(false)),
            other => Err(format!("expecting boolean value for flag {name}, not: {other}")),
        }
    }

    fn take_all(&mut self, name: &str) -> Vec<String> {
        std::iter::from_fn(|| self.take(name)).collect()
    }

    fn into_map(self) -> BTreeMap<String, String> {
        self.0.into_iter().collect()
    }
}

fn run(mut flags: Flags, command: Command, heredocs: Vec<Heredoc>) -> Result<Run, String> {
    let mounts = flags.take_all("mount").iter().map(|mount| mounts::fields(mount)).collect::<Result<Vec<_>, _>>()?;
    mounts.iter().try_for_each(mounts::check)?;
    let offline = match flags.take("network").as_deref() {
        None | Some("default" | "host") => false,
        Some("none") => true,
        Some(other) => return Err(format!("unsupported network mode {other:?}")),
    };
    let privileged = match flags.take("security").as_deref() {
        None | Some("sandbox") => false,
        Some("insecure") => true,
        Some(other) => return Err(format!("security {other:?} is not valid")),
    };
    Ok(Run { command, mounts, offline, privileged, heredocs })
}

/// The instruction is read now, so that a mistake shows here and not with whoever builds on the image.
fn on_build(rest: &str, heredocs: Vec<Heredoc>, escape: char) -> Result<Op, String> {
    let keyword = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    match keyword.as_str() {
        "ONBUILD" => return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()),
        "FROM" | "MAINTAINER" => return Err(format!("{keyword} isn't allowed as an ONBUILD trigger")),
        _ => {}
    }
    let mut text = rest.to_owned();
    for heredoc in &heredocs {
        text.push_str(&format!("\n{}{}", heredoc.text, heredoc.name));
    }
    operation(rest, heredocs, escape)?;
    Ok(Op::OnBuild(text))
}

/// `--name=value` words before the arguments. Blanks are part of a word within quotes, or behind a backslash.
fn flags(mut rest: &str) -> Result<(Flags, &str), String> {
    let mut flags = Flags::default();
    while rest.starts_with("--") {
        let (word, after) = flag(rest);
        rest = after.trim_start();
        let word = word.strip_prefix("--").unwrap_or_default();
        if word.is_empty() {
            break;
        }
        let (name, value) = word.split_once('=').unwrap_or((word, "true"));
        flags.0.push((name.to_owned(), value.to_owned()));
    }
    Ok((flags, rest))
}

/// The first word without its quotes and escapes, and what follows it.
fn flag(text: &str) -> (String, &str) {
    let (mut word, mut quote) = (String::new(), None);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            c if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => quote = Some(c),
            '\\' => word.extend(chars.next().map(|(_, c)| c)),
            c if quote.is_none() && c.is_whitespace() => return (word, text.get(at..).unwrap_or_default()),
            c => word.push(c),
        }
    }
    (word, "")
}

fn from(mut flags: Flags, rest: &str) -> Result<Op, String> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (image, name) = match words.as_slice() {
        [image] => (*image, None),
        [image, keyword, name] if keyword.eq_ignore_ascii_case("as") => (*image, Some(name.to_ascii_lowercase())),
        _ => return Err("FROM requires either one or three arguments".to_owned()),
    };
    if let Some(name) = &name {
        let fine = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !fine {
            return Err(format!(
                "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
            ));
        }
    }
    Ok(Op::From { image: image.to_owned(), platform: flags.take("platform"), name })
}

fn files(keyword: &str, mut flags: Flags, rest: &str, heredocs: Vec<Heredoc>) -> Result<Files, String> {
    let mut sources = json(rest)?.unwrap_or_else(|| words_of(rest));
    let dest = sources.pop().unwrap_or_default();
    if sources.is_empty() || heredocs.iter().any(|heredoc| heredoc.word == dest) {
        return Err(format!("{keyword} requires at least two arguments, but only one was provided"));
    }
    flags.switch("link")?;
    let from = flags.take("from");
    if from.as_ref().is_some_and(|from| from.contains('$')) {
        return Err("variable expansion is not supported for --from, define a new stage with FROM using ARG from \
                    global scope as a workaround"
            .to_owned());
    }
    Ok(Files {
        from,
        chown: flags.take("chown"),
        chmod: flags.take("chmod"),
        checksum: flags.take("checksum"),
        keep_git_dir: flags.switch("keep-git-dir")?.unwrap_or(false),
        unpack: flags.switch("unpack")?,
        excludes: flags.take_all("exclude"),
        parents: flags.switch("parents")?.unwrap_or(false),
        sources,
        heredocs,
        dest,
    })
}

fn health(flags: BTreeMap<String, String>, rest: &str) -> Result<Op, String> {
    let (kind, words) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    if kind.eq_ignore_ascii_case("NONE") && words.trim().is_empty() {
        return Ok(Op::Healthcheck(Health { command: None, flags }));
    }
    if !kind.eq_ignore_ascii_case("CMD") || words.trim().is_empty() {
        return Err(format!("unknown type {kind:?} in HEALTHCHECK (try CMD)"));
    }
    Ok(Op::Healthcheck(Health { command: Some(command(words.trim())?), flags }))
}

/// `k=v k2="v 2"`, or the old `k the whole rest`.
fn pairs(keyword: &str, rest: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let words = words::split(rest, escape);
    if words.first().is_some_and(|first| !first.contains('=')) {
        let (key, value) =
            rest.split_once(char::is_whitespace).ok_or_else(|| format!("{keyword} must have two arguments"))?;
        return Ok(vec![(key.to_owned(), value.trim_start().to_owned())]);
    }
    let pair = |word: &String| match word.split_once('=') {
        Some(("", _)) => Err(format!("{keyword} names can not be blank")),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value")),
    };
    words.iter().map(pair).collect()
}

fn argument(word: &str) -> (String, Option<String>) {
    match word.split_once('=') {
        Some((name, default)) => (name.to_owned(), Some(default.to_owned())),
        None => (word.to_owned(), None),
    }
}

fn one(keyword: &str, rest: &str) -> Result<String, String> {
    if rest.split_whitespace().count() > 1 && !rest.contains(['"', '\'', '$']) {
        return Err(format!("{keyword} requires exactly one argument"));
    }
    Ok(rest.to_owned())
}

/// A command in either form.
fn command(text: &str) -> Result<Command, String> {
    Ok(json(text)?.map_or_else(|| Command::Shell(text.to_owned()), Command::Exec))
}

fn words_of(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn at_least_one(keyword: &str, words: Vec<String>) -> Result<Vec<String>, String> {
    if words.is_empty() { Err(format!("{keyword} requires at least one argument")) } else { Ok(words) }
}

/// The JSON form: an array of strings. What is no array at all is the shell form, as Docker has it.
fn json(text: &str) -> Result<Option<Vec<String>>, String> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    let words = values.into_iter().map(|value| match value {
        serde_json::Value::String(word) => Ok(word),
        _ => Err("when using JSON array syntax, arrays must be comprised of strings only".to_owned()),
    });
    words.collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ops(text: &str) -> Vec<(usize, Op)> {
        parse(text).unwrap().instructions.into_iter().map(|i| (i.line, i.op)).collect()
    }

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn lines_comments_and_continuations_are_read_as_docker_does() {
        let text = "\u{feff}# syntax=docker/dockerfile:1\n\n# a comment\nFROM scratch\r\nenv a=1 \\\n  # between\n\n  b=2 \\\n  c=3\nCMD x \\\\\n";
        let env = [("a", "1"), ("b", "2"), ("c", "3")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(
            ops(text),
            [
                (4, Op::From { image: "scratch".to_owned(), platform: None, name: None }),
                (5, Op::Env(env.to_vec())),
                (10, Op::Cmd(Command::Shell("x \\\\".to_owned()))),
            ]
        );
        let text = "# escape=`\nFROM x AS Build\nCOPY a `\n  b\nWORKDIR C:\\";
        assert_eq!(ops(text)[1].0, 3);
        assert_eq!(ops(text)[2].1, Op::Workdir("C:\\".to_owned()));
        assert!(matches!(&ops(text)[0].1, Op::From { name: Some(name), .. } if name == "build"));
        let late = "# other=1\n# escape=`\nFROM x\nCMD a \\\n b";
        assert_eq!(ops(late)[1].1, Op::Cmd(Command::Shell("a  b".to_owned())));
    }

    #[test]
    fn both_forms_of_commands_and_lists_are_read() {
        let text = "FROM x\nCMD [\"a\", \"b c\"]\nCMD [a]\nENTRYPOINT run it\nVOLUME [\"/a b\"]\nVOLUME /a /b\n\
                    COPY --from=0 --chown=1:2 [\"a b\", \"/c\"]\nENV legacy the whole rest\nHEALTHCHECK --retries=3 CMD x\nSHELL [\"/bin/ash\", \"-c\"]";
        let ops: Vec<Op> = ops(text).into_iter().skip(1).map(|(_, op)| op).collect();
        assert_eq!(ops[0], Op::Cmd(Command::Exec(strings(&["a", "b c"]))));
        assert_eq!(ops[1], Op::Cmd(Command::Shell("[a]".to_owned())));
        assert_eq!(ops[2], Op::Entrypoint(Command::Shell("run it".to_owned())));
        assert_eq!(ops[3], Op::Volume(strings(&["/a b"])));
        assert_eq!(ops[4], Op::Volume(strings(&["/a", "/b"])));
        let Op::Copy(files) = &ops[5] else { panic!() };
        assert_eq!(
            (files.from.as_deref(), files.chown.as_deref(), files.dest.as_str()),
            (Some("0"), Some("1:2"), "/c")
        );
        assert_eq!(files.sources, ["a b"]);
        assert_eq!(ops[6], Op::Env(vec![("legacy".to_owned(), "the whole rest".to_owned())]));
        assert!(matches!(&ops[7], Op::Healthcheck(health) if health.flags["retries"] == "3"));
        assert_eq!(ops[8], Op::Shell(strings(&["/bin/ash", "-c"])));
    }

    #[test]
    fn flags_may_be_quoted() {
        let text = "FROM x\nCOPY --chown=\"$A:$B\" --from='base' a /b\nHEALTHCHECK --interval=\"5s\" CMD x\n\
                    RUN --mount=type=bind,target=\"/a b\" --network=none\tls\\ -l\n";
        let ops: Vec<Op> = ops(text).into_iter().skip(1).map(|(_, op)| op).collect();
        let Op::Copy(files) = &ops[0] else { panic!() };
        assert_eq!((files.chown.as_deref(), files.from.as_deref()), (Some("$A:$B"), Some("base")));
        assert!(matches!(&ops[1], Op::Healthcheck(health) if health.flags["interval"] == "5s"));
        let Op::Run(run) = &ops[2] else { panic!() };
        assert_eq!(run.mounts[0][1], ("target".to_owned(), Some("/a b".to_owned())));
        assert_eq!((run.offline, &run.command), (true, &Command::Shell("ls\\ -l".to_owned())));
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_line() {
        for (text, line, words) in [
            ("", 1, "file with no instructions"),
            ("# only\n", 1, "file with no instructions"),
            ("\nCOPY a b", 2, "no build stage in current context"),
            ("FROM x\nFOO bar", 2, "unknown instruction: FOO"),
            ("FROM a b", 1, "FROM requires either one or three arguments"),
            ("FROM a AS 1x", 1, "invalid name for build stage"),
            ("FROM x\n\nCOPY a", 3, "COPY requires at least two arguments"),
            ("FROM x\nCOPY", 2, "COPY requires at least one argument"),
            ("FROM x\nCOPY <<EOF /x\nhi\n", 2, "unterminated heredoc: <<EOF"),
            ("FROM x\nCOPY a <<EOF\nEOF", 2, "COPY requires at least two arguments"),
            ("FROM x\nRUN --mount=type=x,target=/y z", 2, "unsupported mount type \"x\""),
            ("FROM x\nRUN --network=some z", 2, "unsupported network mode \"some\""),
            ("FROM x\nRUN --security=some z", 2, "security \"some\" is not valid"),
            ("FROM x\nCOPY --unpack a b", 2, "unknown flag: --unpack of COPY"),
            ("FROM x\nADD --unpack=maybe a b", 2, "expecting boolean value for flag unpack, not: maybe"),
            ("FROM x\nCOPY --link=2 a b", 2, "expecting boolean value for flag link, not: 2"),
            ("FROM x\nCOPY --from=$A a b", 2, "variable expansion is not supported for --from"),
            ("FROM x\nRUN --mount=from=$A,target=/x y", 2, "'from' doesn't support variable expansion"),
            ("FROM x\nCMD [\"a\", 1]", 2, "arrays must be comprised of strings only"),
            ("FROM x\nVOLUME []", 2, "VOLUME requires at least one argument"),
            ("FROM x\nCOPY --chown=1 --chown=2 a b", 2, "duplicate flag specified: --chown"),
            ("FROM x\nENV a", 2, "ENV must have two arguments"),
            ("FROM x\nENV a=1 b", 2, "can't find = in \"b\""),
            ("FROM x\nENV =1", 2, "names can not be blank"),
            ("FROM x\nSHELL sh", 2, "SHELL requires the arguments to be in JSON form"),
            ("FROM x\nHEALTHCHECK foo", 2, "unknown type \"foo\" in HEALTHCHECK"),
            ("FROM x\nONBUILD COPY a", 2, "COPY requires at least two arguments"),
            ("FROM x\nONBUILD ONBUILD USER a", 2, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
            ("FROM x\nONBUILD FROM y", 2, "FROM isn't allowed as an ONBUILD trigger"),
            ("# escape=x\nFROM x", 1, "invalid ESCAPE"),
            ("# Syntax=x\n#syntax = y\nFROM x", 2, "only one syntax parser directive can be used"),
        ] {
            let failure = parse(text).unwrap_err();
            assert_eq!(failure.line, line, "{text}: {}", failure.message);
            assert!(failure.message.contains(words), "{text}: {}", failure.message);
        }
    }
}
