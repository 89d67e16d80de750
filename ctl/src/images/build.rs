//! `reeve build`: an image from a Dockerfile, into a cluster's images.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use reeve_engine::build::{BuildRequest, Progress, build};
use reeve_engine::images::Reference;

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
    /// Print the image's id only
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Runs the verb.
pub(crate) async fn run(args: BuildArgs) -> Result<(), CliError> {
    blocking(move || run_now(&args)).await
}

fn run_now(args: &BuildArgs) -> Result<(), CliError> {
    let request = request(args, |name| std::env::var(name).ok())?;
    let store = args.store.open_or_make()?;
    let image = build(&store, &request, &mut |progress| report(args.quiet, &progress)).map_err(|err| failed(&err))?;
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

/// What happens goes to standard error: standard output is the result's.
fn report(quiet: bool, progress: &Progress) {
    match progress {
        Progress::Warning(text) => eprintln!("Warning: {text}"),
        Progress::Step { number, total, text } if !quiet => eprintln!("Step {number}/{total} : {text}"),
        Progress::Step { .. } => {}
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
    Ok(BuildRequest {
        context: args.context.clone(),
        dockerfile: args.file.clone(),
        tags: args.tags.clone(),
        build_args,
        target: args.target.clone(),
        source_date_epoch: epoch.transpose()?,
    })
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
}
