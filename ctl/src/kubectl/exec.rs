//! `exec` and `attach`: a command's, or a container's own, streams and terminal.

use clap::Args;
use futures::SinkExt as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::signal::unix::{SignalKind, signal};

use super::api::Api;
use super::error::CliError;
use super::logs::{default_container, pod_of};

/// `exec`
#[derive(Debug, Clone, Args)]
pub(crate) struct ExecArgs {
    /// POD or TYPE/NAME
    pub target: String,
    /// The container
    #[arg(short, long)]
    pub container: Option<String>,
    /// Connect standard input
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Print nothing of our own
    #[arg(short, long)]
    pub quiet: bool,
    /// The command, behind --
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// `attach`
#[derive(Debug, Clone, Args)]
pub(crate) struct AttachArgs {
    /// POD or TYPE/NAME
    pub target: String,
    /// The container
    #[arg(short, long)]
    pub container: Option<String>,
    /// Connect standard input
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// The container has a terminal: use it
    #[arg(short, long)]
    pub tty: bool,
    /// Print nothing of our own
    #[arg(short, long)]
    pub quiet: bool,
}

/// Runs `exec`; the command's exit code becomes ours.
pub(crate) async fn exec(args: ExecArgs, api: &Api) -> Result<(), CliError> {
    if args.command.is_empty() {
        return Err(CliError::plain("you must specify at least one command for the container"));
    }
    let (pod, container) = find(api, &args.target, args.container, args.quiet).await?;
    let terminal = Terminal::take(args.stdin, args.tty);
    let params = params(&container, args.stdin, terminal.is_some());
    let pods: kube::Api<Pod> = kube::Api::namespaced(api.client().clone(), &api.namespace);
    let process = pods.exec(&pod, args.command, &params).await.map_err(refused)?;
    run(process, args.stdin, terminal).await
}

/// Runs `attach`.
pub(crate) async fn attach(args: AttachArgs, api: &Api) -> Result<(), CliError> {
    let (pod, container) = find(api, &args.target, args.container, args.quiet).await?;
    let terminal = Terminal::take(args.stdin, args.tty);
    if !args.quiet && args.stdin && terminal.is_some() {
        eprintln!("If you don't see a command prompt, try pressing enter.");
    }
    let params = params(&container, args.stdin, terminal.is_some());
    let pods: kube::Api<Pod> = kube::Api::namespaced(api.client().clone(), &api.namespace);
    let process = pods.attach(&pod, &params).await.map_err(refused)?;
    run(process, args.stdin, terminal).await
}

async fn find(api: &Api, target: &str, container: Option<String>, quiet: bool) -> Result<(String, String), CliError> {
    let (pod, _) = pod_of(api, target).await?;
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (name, phase) = (text("/metadata/name"), text("/status/phase"));
    if phase == "Succeeded" || phase == "Failed" {
        return Err(CliError::plain(format!(
            "cannot exec into a container in a completed pod; current phase is {phase}"
        )));
    }
    Ok((name, container.unwrap_or_else(|| default_container(&pod, quiet))))
}

fn params(container: &str, stdin: bool, tty: bool) -> AttachParams {
    AttachParams::default().container(container).stdin(stdin).stdout(true).stderr(!tty).tty(tty)
}

fn refused(err: kube::Error) -> CliError {
    match err {
        kube::Error::Api(status) => {
            let text =
                serde_json::to_value(&*status).ok().and_then(|value| serde_json::from_value::<Status>(value).ok());
            CliError::Server(Box::new(text.unwrap_or_default()))
        }
        other => CliError::plain(other.to_string()),
    }
}

/// The terminal in raw mode; put back when dropped.
struct Terminal(Termios);

impl Terminal {
    /// Takes the terminal if one is wanted and there is one.
    fn take(stdin: bool, tty: bool) -> Option<Self> {
        if !tty {
            return None;
        }
        if !stdin || !isatty(std::io::stdin()) {
            eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
            return None;
        }
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        // What is typed ahead is for the command.
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }

    fn size() -> Option<TerminalSize> {
        let size = tcgetwinsize(std::io::stdin()).ok()?;
        Some(TerminalSize { width: size.ws_col, height: size.ws_row })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

async fn run(mut process: AttachedProcess, stdin: bool, terminal: Option<Terminal>) -> Result<(), CliError> {
    let sizes = terminal.is_some().then(|| process.terminal_size()).flatten();
    if let Some(mut sizes) = sizes {
        tokio::spawn(async move {
            let Ok(mut resized) = signal(SignalKind::window_change()) else { return };
            loop {
                if let Some(size) = Terminal::size()
                    && sizes.send(size).await.is_err()
                {
                    return;
                }
                resized.recv().await;
            }
        });
    }
    if let Some(mut writer) = process.stdin().filter(|_| stdin) {
        tokio::spawn(async move {
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut writer).await;
            let _ = writer.shutdown().await;
        });
    }
    let (stdout, stderr, status) = (process.stdout(), process.stderr(), process.take_status());
    let out = async {
        if let Some(mut stdout) = stdout {
            let mut own = tokio::io::stdout();
            let _ = tokio::io::copy(&mut stdout, &mut own).await;
            let _ = own.flush().await;
        }
    };
    let err = async {
        if let Some(mut stderr) = stderr {
            let mut own = tokio::io::stderr();
            let _ = tokio::io::copy(&mut stderr, &mut own).await;
            let _ = own.flush().await;
        }
    };
    let status = async {
        match status {
            Some(status) => status.await,
            None => None,
        }
    };
    let ((), (), status) = tokio::join!(out, err, status);
    drop(terminal);
    outcome(status)
}

/// A status of failure is the command's exit code, or the reason why it did not run.
fn outcome(status: Option<Status>) -> Result<(), CliError> {
    let Some(status) = status else { return Ok(()) };
    if status.status.as_deref() != Some("Failure") {
        return Ok(());
    }
    let causes = status.details.as_ref().and_then(|details| details.causes.as_ref());
    let code = causes.into_iter().flatten().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    let code = code.and_then(|cause| cause.message.as_deref()?.parse::<u8>().ok());
    match code {
        Some(code) => {
            eprintln!("command terminated with exit code {code}");
            Err(CliError::Exit(code))
        }
        None => Err(CliError::plain(status.message.unwrap_or_else(|| "the command failed".to_owned()))),
    }
}
