//! Flags that many verbs share.

use std::path::PathBuf;

use clap::Args;

use super::error::CliError;

/// What the user called this program: `kubectl` when it is installed under that name.
pub(crate) fn program() -> &'static str {
    let called = std::env::args_os().next();
    let kubectl =
        called.is_some_and(|path| std::path::Path::new(&path).file_stem().is_some_and(|own| own == "kubectl"));
    if kubectl { "kubectl" } else { "reeve" }
}

/// Which cluster, as whom, in which namespace.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of verbs that talk to an API server")]
pub(crate) struct GlobalArgs {
    /// Path of the kubeconfig file
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Cluster of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME")]
    pub cluster: Option<String>,
    /// User of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME")]
    pub user: Option<String>,
    /// Namespace of the request
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Address of the API server
    #[arg(short, long, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// Bearer token
    #[arg(long, global = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// How long to wait for one answer of the server, such as 5s or 2m; 0 waits forever
    #[arg(long, global = true, value_name = "DURATION", default_value = "0")]
    pub request_timeout: String,
    /// Do not check the server's certificate: whoever is in between can read and change everything
    #[arg(long, global = true)]
    pub insecure_skip_tls_verify: bool,
    /// Treat warnings of the server as errors
    #[arg(long, global = true)]
    pub warnings_as_errors: bool,
    /// Accepted for scripts; what is asked and answered is not logged
    #[arg(short = 'v', long = "v", global = true, hide = true, value_name = "LEVEL")]
    pub log_level: Option<i32>,
}

impl GlobalArgs {
    /// For verbs that talk to no API server: flags that say how to reach one would be passed over, which is worse than
    /// refused. `why` says what the verb works on.
    pub(crate) fn refuse_connection(&self, why: &str) -> Result<(), CliError> {
        let given = [
            ("--cluster", self.cluster.is_some()),
            ("--user", self.user.is_some()),
            ("--namespace", self.namespace.is_some()),
            ("--server", self.server.is_some()),
            ("--token", self.token.is_some()),
            ("--request-timeout", self.request_timeout != "0" && !self.request_timeout.is_empty()),
            ("--insecure-skip-tls-verify", self.insecure_skip_tls_verify),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(CliError::plain(format!("{flag} is of no use here: {why}"))),
            None => Ok(()),
        }
    }
}

/// What `-f` names.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct FileArgs {
    /// File, folder or `-` for standard input; may be repeated
    #[arg(short, long, value_name = "FILE", value_delimiter = ',')]
    pub filename: Vec<String>,
    /// Also read the folders inside folders
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

/// Whether anything is really done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum DryRun {
    /// It is done.
    #[default]
    None,
    /// Nothing is sent.
    Client,
    /// The server goes through everything but does not keep the result.
    Server,
}

/// `--dry-run`, also without a value as older scripts write it.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct DryRunArgs {
    /// Print what would be done (client) or let the server check it (server) without doing it
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    pub dry_run: DryRun,
}

impl DryRunArgs {
    /// What stands behind `created`, `configured`, …
    pub(crate) fn suffix(self) -> &'static str {
        match self.dry_run {
            DryRun::None => "",
            DryRun::Client => " (dry run)",
            DryRun::Server => " (server dry run)",
        }
    }

    /// The query parameter for the server.
    pub(crate) fn query(self) -> Option<(&'static str, String)> {
        (self.dry_run == DryRun::Server).then(|| ("dryRun", "All".to_owned()))
    }
}

/// `--validate`: what the server does with unknown and duplicate fields.
#[derive(Debug, Clone, Args)]
pub(crate) struct ValidateArgs {
    /// Refuse (strict or true), warn about (warn) or ignore (ignore or false) unknown and duplicate fields
    #[arg(long, default_value = "strict", num_args = 0..=1, default_missing_value = "strict", require_equals = true,
        value_parser = ["strict", "true", "warn", "ignore", "false"])]
    pub validate: String,
}

impl ValidateArgs {
    /// The value of the query parameter `fieldValidation`.
    pub(crate) fn query(&self) -> (&'static str, String) {
        let value = match self.validate.as_str() {
            "warn" => "Warn",
            "ignore" | "false" => "Ignore",
            _ => "Strict",
        };
        ("fieldValidation", value.to_owned())
    }
}
