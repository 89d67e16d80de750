//! `reeve build`: an image from a Dockerfile, into a cluster's images.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use reeve_engine::build::{BuildRequest, Progress, Secret, build};
use reeve_engine::images::Reference;
use tokio::time::Instant;

use super::{StoreArgs, blocking, failed};
use crate::kubectl::error::CliError;
use crate::kubectl::get::write;

/// Environment variable with the time, in seconds since 1970, that everything in the image gets.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// `reeve build`
#[derive(Debug, Clone, Args)]
pub(crate) struct BuildArgs {
    /// The folder that COPY and ADD see
    #[arg(id = "build context", value_name = "DIR")]
    pub context: PathBuf,
    /// Name of the image, NAME[:TAG]; may be repeated
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    pub tags: Vec<String>,
    /// The Dockerfile [default: Dockerfile in DIR]
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Value of an ARG, NAME=VALUE; NAME alone takes it from the environment; may be repeated
    #[arg(long = "build-arg", value_name = "NAME=VALUE")]
    pub build_args: Vec<String>,
    /// The stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// A secret for RUN --mount=type=secret: id=NAME,src=FILE or id=NAME,env=VARIABLE; may be repeated
    #[arg(long = "secret", value_name = "id=NAME,…")]
    pub secrets: Vec<String>,
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
    let request = request(args, |name| std::env::var(name).ok())?;
    let store = args.store.open_or_make()?;
    let mut report = Report::new(args.quiet);
    let image = build(&store, &request, &mut |progress| report.take(&progress)).map_err(|err| failed(&err))?;
    report.end();
    if args.quiet {
        return write(&format!("{}\n", image.id));
    }
    let id = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
    let mut text = format!("Successfully built {}\n", id.get(..12).unwrap_or(id));
    for tag in &args.tags {
        let name = Reference::parse(tag).map_or_else(|_| tag.clone(), |reference| reference.familiar());
        text.push_str(&format!("Successfully tagged {name}\n"));
    }
    write(&text)
}

/// Tells how far a build is, as BuildKit's plain progress does. To standard error: standard output is the result's.
struct Report {
    quiet: bool,
    /// Number of the step that is under way, when it began, and whether its result was known.
    step: Option<(usize, Instant, bool)>,
}

impl Report {
    fn new(quiet: bool) -> Self {
        Self { quiet, step: None }
    }

    fn take(&mut self, progress: &Progress) {
        if let Progress::Step { .. } = progress {
            self.end();
        }
        if let Some(line) = self.line(progress) {
            eprintln!("{line}");
        }
    }

    fn line(&mut self, progress: &Progress) -> Option<String> {
        match progress {
            Progress::Warning(text) => return Some(format!("Warning: {text}")),
            _ if self.quiet => return None,
            Progress::Step { number, total, text } => {
                self.step = Some((*number, Instant::now(), false));
                return Some(format!("#{number} [{number}/{total}] {text}"));
            }
            _ => {}
        }
        let (number, began, cached) = self.step.as_mut()?;
        match progress {
            Progress::Output(text) => Some(format!("#{number} {:.3} {text}", began.elapsed().as_secs_f32())),
            _ => {
                *cached = true;
                Some(format!("#{number} CACHED"))
            }
        }
    }

    /// The step that is under way has been carried out.
    fn end(&mut self) {
        if let Some((number, began, false)) = self.step.take() {
            eprintln!("#{number} DONE {:.1}s", began.elapsed().as_secs_f32());
        }
    }
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
        no_cache: args.no_cache,
        pull: args.pull,
        context: args.context.clone(),
        dockerfile: args.file.clone(),
        tags: args.tags.clone(),
        build_args,
        target: args.target.clone(),
        source_date_epoch: epoch.transpose()?,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn args(build_args: &[&str]) -> BuildArgs {
        BuildArgs {
            context: ".".into(),
            tags: Vec::new(),
            file: None,
            build_args: build_args.iter().map(|own| (*own).to_owned()).collect(),
            target: None,
            secrets: Vec::new(),
            no_cache: false,
            pull: false,
            platform: None,
            quiet: false,
            store: StoreArgs { name: "dev".to_owned(), data_dir: None },
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
    fn progress_reads_as_buildkits_does() {
        let mut report = Report::new(false);
        let step = Progress::Step { number: 2, total: 3, text: "RUN make".to_owned() };
        assert_eq!(report.line(&step).unwrap(), "#2 [2/3] RUN make");
        assert!(report.line(&Progress::Output("cc".to_owned())).unwrap().ends_with(" cc"));
        assert_eq!(report.line(&Progress::Cached).unwrap(), "#2 CACHED");
        let mut quiet = Report::new(true);
        assert_eq!(quiet.line(&step), None);
        assert_eq!(quiet.line(&Progress::Warning("x".to_owned())).unwrap(), "Warning: x");
    }
}
