//! The flags of `reeve backup`, `reeve restore` and `reeve store`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `reeve backup`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BackupArgs {
    #[command(subcommand)]
    pub command: Option<BackupCommand>,
    #[command(flatten)]
    pub make: MakeArgs,
}

/// What can be done with backups that are there.
#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Show the backups of a folder or an S3 address
    List(ListArgs),
    /// Read a backup to its end and say whether it is whole
    Check(CheckArgs),
}

/// `reeve backup FILE`
#[derive(Debug, Args)]
pub(crate) struct MakeArgs {
    /// Where the backup goes; `-` for standard output
    pub file: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    pub force: bool,
    /// Encrypt it: with --key-file, or with a passphrase that is asked for, read from --passphrase-file or taken from
    /// $REEVE_BACKUP_PASSPHRASE
    #[arg(long)]
    pub encrypt: bool,
    #[command(flatten)]
    pub secret: SecretArgs,
    /// Read the data folder of a cluster that is stopped, instead of asking its API server
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Do not show how far it is
    #[arg(long)]
    pub no_progress: bool,
}

/// What a backup is encrypted with.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SecretArgs {
    /// File with the passphrase in its first line
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// File with a key: at least 32 random bytes, such as `head -c 32 /dev/urandom` makes
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    pub key_file: Option<PathBuf>,
}

/// `reeve backup list`
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// A folder, or s3://BUCKET/PREFIX?endpoint=URL
    pub place: String,
    /// File with the credentials for S3, as AWS writes it [default: $AWS_ACCESS_KEY_ID, $AWS_SECRET_ACCESS_KEY]
    #[arg(long, value_name = "FILE")]
    pub credentials: Option<PathBuf>,
}

/// `reeve backup check`
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The backup; `-` for standard input
    pub file: PathBuf,
    #[command(flatten)]
    pub secret: SecretArgs,
}

/// `reeve restore`
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The backup; `-` for standard input
    pub file: PathBuf,
    /// What is made of it: a cluster for `reeve up`, or the first server of a control plane for `reeve server`
    /// [default: what was backed up]
    #[arg(long = "as", value_name = "KIND", value_enum)]
    pub kind: Option<RestoredKind>,
    /// Name of the cluster that is made [default: the name in the backup], or of the server [default: the host name]
    #[arg(long)]
    pub name: Option<String>,
    /// Where its data goes, a new or empty folder [default: /var/lib/reeve/NAME; of a server: /var/lib/reeve/server]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub secret: SecretArgs,
}

/// What a restore makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RestoredKind {
    /// A cluster for `reeve up`
    Up,
    /// A server for `reeve server`
    Server,
}

/// `reeve store`
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Read everything that the store has on disk and say what is damaged
    Verify(VerifyArgs),
}

/// `reeve store verify`
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Read the data folder of a cluster that is stopped, instead of asking its API server
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}
