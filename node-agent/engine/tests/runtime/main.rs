//! The engine with real containers. This program is at once the tests, the supervisor of their containers (it is
//! started again under the hidden name), and an agent that dies on purpose.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod adoption;
mod attacks;
mod bed;
mod build;
mod checkpoint;
mod exec;
mod groups;
mod hooks;
mod image_volumes;
mod isolation;
mod lifecycle;
mod restore;
mod seam;
mod speed;
#[path = "../suite/mod.rs"]
mod suite;
mod update;
mod users;

use std::process::ExitCode;

use futures::future::LocalBoxFuture;

/// A test: its name is the guarantee.
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) run: fn() -> LocalBoxFuture<'static, ()>,
}

/// Lists async functions as tests.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) fn all() -> Vec<$crate::Test> {
            vec![$($crate::Test {
                name: concat!(module_path!(), "::", stringify!($name)),
                run: || Box::pin($name()),
            }),*]
        }
    };
}

fn main() -> ExitCode {
    if let Some(code) = reeve_engine::supervisor::supervisor_main(std::env::args_os()) {
        return code;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == adoption::AGENT) {
        return adoption::agent_main(&args[1..]);
    }
    if let [build::FOR_EVER, images, context] = args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        build::build_for_ever(images.as_ref(), context.as_ref());
    }
    let tests = [
        lifecycle::all(),
        seam::all(),
        exec::all(),
        isolation::all(),
        attacks::all(),
        update::all(),
        users::all(),
        groups::all(),
        hooks::all(),
        checkpoint::all(),
        restore::all(),
        image_volumes::all(),
        adoption::all(),
        build::all(),
        speed::all(),
    ];
    let tests: Vec<Test> = tests.into_iter().flatten().collect();
    if args.iter().any(|arg| arg == "--list") {
        tests.iter().for_each(|test| println!("{}: test", test.name));
        return ExitCode::SUCCESS;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: containers need root; nothing of the runtime was tested");
        return ExitCode::SUCCESS;
    }
    run(&tests, args.iter().find(|arg| !arg.starts_with('-')).map(String::as_str))
}

/// One after the other: each has a supervisor of its own, and a machine of two cores.
fn run(tests: &[Test], filter: Option<&str>) -> ExitCode {
    let chosen: Vec<&Test> =
        tests.iter().filter(|test| filter.is_none_or(|filter| test.name.contains(filter))).collect();
    println!("\nrunning {} tests", chosen.len());
    let mut failed = Vec::new();
    for test in &chosen {
        let outcome = std::panic::catch_unwind(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let limit = std::time::Duration::from_secs(60);
            let done = runtime.block_on(async { tokio::time::timeout(limit, (test.run)()).await });
            runtime.shutdown_timeout(std::time::Duration::from_secs(1));
            done.expect("the test took more than a minute");
        });
        println!("test {} ... {}", test.name, if outcome.is_ok() { "ok" } else { "FAILED" });
        if outcome.is_err() {
            failed.push(test.name);
        }
    }
    let (passed, all) = (chosen.len() - failed.len(), tests.len());
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {} failed; 0 ignored; 0 measured; {} filtered out\n",
        failed.len(),
        all - chosen.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
