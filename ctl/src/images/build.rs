//! `reeve build`: an image from a Dockerfile, into a cluster's images.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use reeve_engine::build::{BuildError, BuildRequest, Secret, build, git};
use reeve_engine::images::Reference;

use super::display::{Display, Mode, clean};
use super::{StoreArgs, blocking, failed};
use crate::kubectl::error::CliError;
use crate::kubectl::get::write;

/// Environment variable with the time, in seconds since 1970, that everything in the image gets.
const EPOCH: &str = "SOURCE_DATE_EPOCH";
/// Environment variable with the socket of this user's SSH agent.
const AGENT: &str = "SSH_AUTH_SOCK";

/// What `--file -` stands for.
const STDIN: &str = "/dev/stdin";

/// `reeve build`
#[derive(Debug, Clone, Args)]
pub(crate) struct BuildArgs {
    /// The folder that COPY and ADD see, or a git repository, `URL#REFERENCE:FOLDER`
    #[arg(id = "build context", value_name = "DIR|URL")]
    pub context: PathBuf,
    /// Name of the image, NAME[:TAG]; may be repeated
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    pub tags: Vec<String>,
    /// The Dockerfile; `-` for standard input [default: Dockerfile in DIR]
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Something that the image's manifest is to say, KEY=VALUE; may be repeated
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    pub annotations: Vec<String>,
    /// Value of an ARG, NAME=VALUE; NAME alone takes it from the environment; may be repeated
    #[arg(long = "build-arg", value_name = "NAME=VALUE")]
    pub build_args: Vec<String>,
    /// The stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// A secret for RUN --mount=type=secret: id=NAME,src=FILE or id=NAME,env=VARIABLE; may be repeated
    #[arg(long = "secret", value_name = "id=NAME,…")]
    pub secrets: Vec<String>,
    /// An SSH agent for RUN --mount=type=ssh: default (that of `SSH_AUTH_SOCK`), or NAME=SOCKET; may be repeated
    #[arg(long = "ssh", value_name = "default|NAME=SOCKET")]
    pub ssh: Vec<String>,
    /// Make one layer of all that the image has more than its base
    #[arg(long)]
    pub squash: bool,
    /// Run every command again, whatever is known of it
    #[arg(long)]
    pub no_cache: bool,
    /// Ask the registries for newer base images
    #[arg(long)]
    pub pull: bool,
    /// The platform to build for; only this machine's can be
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// Print the image's id only
    #[arg(short, long)]
    pub quiet: bool,
    /// How progress is told: auto, none, plain, quiet or tty; `BUILDKIT_PROGRESS` says it where this flag does not
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub progress: String,
    #[command(flatten)]
    pub store: StoreArgs,
}

/// What a build mounts goes with it, however it ends: it has a mount namespace of its own. To be called before there is
/// a second thread. Whoever may not do that may not mount either, and is told so by the build.
pub(crate) fn leave_mounts() {
    use nix::mount::{MsFlags, mount};
    let own = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS);
    // What is unmounted outside goes here, too; what is mounted here stays here.
    let _ =
        own.and_then(|()| mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>));
}

/// Runs the verb.
pub(crate) async fn run(args: BuildArgs) -> Result<(), CliError> {
    blocking(move || run_now(&args)).await
}

fn run_now(args: &BuildArgs) -> Result<(), CliError> {
    let mode = Mode::of_process(&args.progress, args.quiet)?;
    let mut request = request(args, |name| std::env::var(name).ok())?;
    let store = args.store.open_or_make()?;
    // As long as the build: its files go with it.
    let checkout = args.context.to_str().filter(|text| git::is_repository(text));
    let checkout = checkout.map(|text| git::Checkout::fetch(&store, text)).transpose();
    let checkout = checkout.map_err(|err| CliError::plain(format!("unable to prepare context: {err}")))?;
    if let Some(checkout) = &checkout {
        // A relative Dockerfile lies in the repository, as with Docker.
        request.dockerfile = request.dockerfile.map(|file| checkout.path().join(file));
        request.context = checkout.path().to_owned();
    }
    let mut display = Display::begin(mode)?;
    let image = build(&store, &request, &mut |progress| display.take(&progress));
    display.end();
    let image = image.map_err(|err| {
        if let Some(excerpt) = excerpt(&err) {
            eprintln!("{excerpt}");
        }
        failed(&err)
    })?;
    match mode {
        Mode::None => return Ok(()),
        Mode::Quiet => return write(&format!("{}\n", image.id)),
        Mode::Plain | Mode::Tty => {}
    }
    let id = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
    let mut text = format!("Successfully built {}\n", id.get(..12).unwrap_or(id));
    for tag in &args.tags {
        let name = Reference::parse(tag).map_or_else(|_| tag.clone(), |reference| reference.familiar());
        text.push_str(&format!("Successfully tagged {name}\n"));
    }
    write(&text)
}

/// The line that is wrong, as BuildKit shows it above what is wrong with it.
fn excerpt(err: &BuildError) -> Option<String> {
    let BuildError::At { file, line, text, .. } = err else { return None };
    let rule = "-".repeat(20);
    let text = clean(text);
    (!text.trim().is_empty()).then(|| format!("{file}:{line}\n{rule}\n{line:4} | >>> {text}\n{rule}"))
}

fn request(args: &BuildArgs, environment: impl Fn(&str) -> Option<String>) -> Result<BuildRequest, CliError> {
    let mut build_args = BTreeMap::new();
    for arg in &args.build_args {
        match arg.split_once('=') {
            Some((name, value)) => drop(build_args.insert(name.to_owned(), value.to_owned())),
            // As Docker: a name that the environment does not know keeps the Dockerfile's default.
            None => drop(environment(arg).map(|value| build_args.insert(arg.clone(), value))),
        }
    }
    let epoch = environment(EPOCH).filter(|text| !text.is_empty());
    let epoch = epoch.map(|text| {
        text.parse().map_err(|_| CliError::plain(format!("invalid {EPOCH} {text:?}: a number of seconds since 1970")))
    });
    if let Some(platform) = args.platform.as_deref().filter(|platform| !is_own_platform(platform)) {
        return Err(CliError::plain(format!(
            "platform {platform} is not supported: this machine builds for {}",
            own_platform()
        )));
    }
    Ok(BuildRequest {
        secrets: args.secrets.iter().map(|text| secret(text)).collect::<Result<_, _>>()?,
        ssh: args.ssh.iter().map(|text| ssh(text, &environment)).collect::<Result<_, _>>()?,
        squash: args.squash,
        no_cache: args.no_cache,
        pull: args.pull,
        context: args.context.clone(),
        dockerfile: args.file.clone().map(|file| if file.as_os_str() == "-" { STDIN.into() } else { file }),
        tags: args.tags.clone(),
        annotations: args.annotations.iter().map(|text| annotation(text)).collect::<Result<_, _>>()?,
        build_args,
        target: args.target.clone(),
        source_date_epoch: epoch.transpose()?,
    })
}

/// `KEY=VALUE`, or `manifest:KEY=VALUE`; our images have one manifest and no other document that takes any.
fn annotation(text: &str) -> Result<(String, String), CliError> {
    let invalid = |rule: &str| CliError::plain(format!("invalid annotation {text:?}: {rule}"));
    let (key, value) = text.split_once('=').ok_or_else(|| invalid("expected key=value"))?;
    let key = match key.split_once(':') {
        None | Some(("manifest", _)) => key.strip_prefix("manifest:").unwrap_or(key),
        Some((kind, _)) => return Err(invalid(&format!("there is no {kind} to annotate, only a manifest"))),
    };
    if key.is_empty() { Err(invalid("the key is empty")) } else { Ok((key.to_owned(), value.to_owned())) }
}

fn own_platform() -> String {
    format!("linux/{}", reeve_engine::images::architecture())
}

fn is_own_platform(platform: &str) -> bool {
    platform == own_platform() || platform == "linux"
}

/// `id=NAME,src=FILE`, `id=NAME,env=VARIABLE`, or `id=NAME` for the file or variable of that name.
fn secret(text: &str) -> Result<(String, Secret), CliError> {
    let invalid = |rule: &str| CliError::plain(format!("invalid --secret {text:?}: {rule}"));
    let (mut id, mut source) = (None, None);
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("id", value)) => id = Some(value.to_owned()),
            Some(("src" | "source", value)) => source = Some(Secret::File(value.into())),
            Some(("env", value)) => source = Some(Secret::Env(value.to_owned())),
            Some(("type", "file" | "env")) => {}
            _ => return Err(invalid("its fields are id=, src=, env=")),
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| invalid("id= is missing"))?;
    let source = source.unwrap_or_else(|| match std::env::var_os(&id) {
        Some(_) => Secret::Env(id.clone()),
        None => Secret::File(id.clone().into()),
    });
    Ok((id, source))
}

/// `default` for the agent of the environment, `NAME` likewise, `NAME=SOCKET` for another one.
fn ssh(text: &str, environment: &impl Fn(&str) -> Option<String>) -> Result<(String, PathBuf), CliError> {
    let (id, socket) = match text.split_once('=') {
        Some((id, socket)) => (id, Some(socket.to_owned())),
        None => (text, environment(AGENT).filter(|socket| !socket.is_empty())),
    };
    match socket {
        Some(socket) if !id.is_empty() => Ok((id.to_owned(), socket.into())),
        Some(_) => Err(CliError::plain(format!("invalid --ssh {text:?}: default, or NAME=SOCKET"))),
        None => Err(CliError::plain(format!("invalid --ssh {text:?}: {AGENT} is not set: start an SSH agent"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(build_args: &[&str]) -> BuildArgs {
        BuildArgs {
            context: ".".into(),
            tags: Vec::new(),
            file: None,
            annotations: Vec::new(),
            build_args: build_args.iter().map(|own| (*own).to_owned()).collect(),
            target: None,
            secrets: Vec::new(),
            ssh: Vec::new(),
            squash: false,
            no_cache: false,
            pull: false,
            platform: None,
            quiet: false,
            progress: "auto".to_owned(),
            store: StoreArgs { name: None, data_dir: None },
        }
    }

    #[test]
    fn a_build_argument_without_a_value_is_taken_from_the_environment() {
        let environment = |name: &str| (name == "HERE").then(|| "yes".to_owned());
        let request = request(&args(&["A=1", "B=x=y", "HERE", "ABSENT"]), environment).expect("a request");
        let expected = [("A", "1"), ("B", "x=y"), ("HERE", "yes")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(request.build_args, BTreeMap::from(expected));
    }

    #[test]
    fn a_dockerfile_may_come_from_standard_input() {
        let given = |file: &str| request(&BuildArgs { file: Some(file.into()), ..args(&[]) }, |_| None);
        assert_eq!(given("-").expect("a request").dockerfile, Some(STDIN.into()));
        assert_eq!(given("./-").expect("a request").dockerfile, Some("./-".into()));
    }

    #[test]
    fn a_source_date_epoch_that_is_no_number_is_refused() {
        let refused = request(&args(&[]), |name| (name == EPOCH).then(|| "today".to_owned())).expect_err("refused");
        assert_eq!(refused.to_string(), "error: invalid SOURCE_DATE_EPOCH \"today\": a number of seconds since 1970");
    }

    #[test]
    fn a_secret_says_where_it_is() {
        let read = |text: &str| secret(text).map_err(|err| err.to_string());
        assert_eq!(read("id=a,src=/f").unwrap(), ("a".to_owned(), Secret::File("/f".into())));
        assert_eq!(read("type=env,id=a,env=B").unwrap(), ("a".to_owned(), Secret::Env("B".to_owned())));
        assert_eq!(read("id=/no-such-variable").unwrap().1, Secret::File("/no-such-variable".into()));
        assert!(read("src=/f").unwrap_err().contains("id= is missing"));
        assert!(read("id=a,file=/f").unwrap_err().contains("its fields are"));
    }

    #[test]
    fn an_annotation_is_a_key_and_a_value_of_the_manifest() {
        let read = |text: &str| annotation(text).map_err(|err| err.to_string());
        for text in ["a.b/c=x=y", "manifest:a.b/c=x=y"] {
            assert_eq!(read(text), Ok(("a.b/c".to_owned(), "x=y".to_owned())));
        }
        assert!(read("a").unwrap_err().ends_with("invalid annotation \"a\": expected key=value"));
        assert!(read("index:a=b").unwrap_err().contains("there is no index to annotate"));
        assert!(read("=b").unwrap_err().contains("the key is empty"));
    }

    #[test]
    fn an_agent_is_that_of_the_environment_or_one_that_is_named() {
        let set = |name: &str| (name == AGENT).then(|| "/agent".to_owned());
        assert_eq!(ssh("default", &set).unwrap(), ("default".to_owned(), "/agent".into()));
        assert_eq!(ssh("key=/s", &|_| None).unwrap(), ("key".to_owned(), "/s".into()));
        let refused = ssh("default", &|_| None).unwrap_err().to_string();
        assert!(refused.contains("SSH_AUTH_SOCK is not set"), "{refused}");
        assert!(ssh("=/s", &set).is_err());
    }

    #[test]
    fn what_is_wrong_is_shown_with_its_line() {
        let at = |text: &str| BuildError::At {
            file: "Dockerfile".to_owned(),
            line: 7,
            text: text.to_owned(),
            message: "wrong".to_owned(),
        };
        let rule = "-".repeat(20);
        let shown = format!("Dockerfile:7\n{rule}\n   7 | >>> RUN x\n{rule}");
        assert_eq!(excerpt(&at("RUN x")).as_ref(), Some(&shown));
        assert_eq!(excerpt(&at("RUN \x1b[2J\x1b]0;title\x07x")), Some(shown), "nothing in it is for the terminal");
        assert_eq!(excerpt(&at("")), None);
    }
}
