//! The programs under test: `reeve`, never a stale one, and the kubectl that talks to it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::command::run;
use crate::source::root;

/// The oldest kubectl the tests are written for, `1.MINOR`.
const KUBECTL_MINOR_MIN: u32 = 30;

/// The program named by `REEVE_BIN`; else the `reeve` of this source tree, in the profile of this test, built first: a
/// no-op when it is fresh.
///
/// # Panics
/// When it cannot be built.
pub fn reeve() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| std::env::var_os("REEVE_BIN").map_or_else(build, PathBuf::from))
}

#[allow(clippy::expect_used, reason = "without the program there is nothing to test")]
fn build() -> PathBuf {
    // TARGET/PROFILE/deps/THIS-TEST
    let own = std::env::current_exe().expect("this test's path");
    let profile_dir = own.parent().and_then(Path::parent).expect("a profile's folder");
    let target_dir = profile_dir.parent().expect("a target folder");
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--locked", "--offline", "--package", "reeve", "--profile", profile]);
    command.arg("--target-dir").arg(target_dir).current_dir(root());
    // What cargo tells a test about its package, build scripts elsewhere (ring's) take for a change, and rebuild the world.
    let about_this_test = |name: &str| {
        name == "LD_LIBRARY_PATH" || ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.starts_with(prefix))
    };
    for (name, _) in std::env::vars().filter(|(name, _)| about_this_test(name)) {
        command.env_remove(name);
    }
    // No bound on its time: from an empty folder it takes minutes. Cargo locks the folder itself.
    let built = command.output().expect("cargo starts");
    assert!(built.status.success(), "cargo build: {}", String::from_utf8_lossy(&built.stderr));
    profile_dir.join("reeve")
}

/// The kubectl on PATH if it is new enough, else `reeve` under that name. Says which on standard error.
///
/// # Panics
/// When there is none and `reeve` cannot be linked as one.
pub fn kubectl() -> &'static Path {
    static CHOSEN: OnceLock<PathBuf> = OnceLock::new();
    CHOSEN.get_or_init(|| match kubectl_minor() {
        Some(minor) if minor >= KUBECTL_MINOR_MIN => {
            eprintln!("kubectl: the one on PATH, 1.{minor}");
            PathBuf::from("kubectl")
        }
        found => {
            eprintln!("NOTE: kubectl on PATH: {found:?}; 1.{KUBECTL_MINOR_MIN} is needed: `reeve` runs as kubectl");
            reeve_as_kubectl()
        }
    })
}

#[allow(clippy::expect_used, reason = "without the program there is nothing to test")]
fn reeve_as_kubectl() -> PathBuf {
    let dir = reeve().parent().expect("a profile's folder").join("reeve-as-kubectl");
    std::fs::create_dir_all(&dir).expect("a folder for the link");
    let link = dir.join("kubectl");
    if std::fs::read_link(&link).ok().as_deref() != Some(reeve()) {
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(reeve(), &link).expect("a link to reeve");
    }
    link
}

fn kubectl_minor() -> Option<u32> {
    let asked = run(Command::new("kubectl").args(["version", "--client", "-o", "json"]), "");
    let answer: serde_json::Value = serde_json::from_str(&asked.stdout).ok()?;
    let minor = answer.get("clientVersion")?.get("minor")?.as_str()?;
    minor.trim_end_matches('+').parse().ok()
}
