//! CRI with real containers: our engine behind its own socket, and Debian's containerd, under the same suite as the
//! engine itself; and a server that is killed at every stage. This program is at once the tests, the supervisor of
//! their containers (it is started again under the hidden name), and a server that dies.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[allow(dead_code, reason = "shared with the engine's own tests, which use all of it")]
#[path = "../../../engine/tests/runtime/bed.rs"]
mod bed;
mod containerd;
mod killed;
mod ours;
#[path = "../../../engine/tests/suite/mod.rs"]
mod suite;
mod tools;
mod wired;
mod words;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use futures::future::LocalBoxFuture;
use reeve_api::clock::RealClock;
use reeve_cri::client::{CriClientConfig, CriEngine};
use reeve_engine::engine::Engine as _;
use suite::{ALL, Ground};

/// A test: its name is the guarantee.
struct Test {
    name: &'static str,
    run: fn() -> LocalBoxFuture<'static, ()>,
}

macro_rules! of {
    ($file:ident: $($name:ident),* $(,)?) => {
        [$(Test { name: concat!(stringify!($file), "::", stringify!($name)), run: || Box::pin($file::$name()) }),*]
    };
}

fn main() -> ExitCode {
    if let Some(code) = reeve_engine::supervisor::supervisor_main(std::env::args_os()) {
        return code;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [killed::SERVE, dir] = args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        killed::serve(Path::new(dir));
    }
    let tests = [
        Test { name: "our_engine_keeps_every_promise_over_the_wire", run: || Box::pin(ours::keeps_every_promise()) },
        Test {
            name: "a_server_that_is_killed_at_any_stage_knows_everything_again",
            run: || Box::pin(killed::knows_everything_again()),
        },
        Test {
            name: "pods_wired_by_real_plugins_reach_each_other_and_leave_nothing",
            run: || Box::pin(wired::pods_reach_each_other()),
        },
        Test { name: "containerd_keeps_every_promise", run: || Box::pin(containerd::keeps_every_promise()) },
    ];
    let words = of![words:
        codes_tell_what_is_wrong,
        a_container_is_told_as_it_was_made_at_every_stage,
        lists_are_filtered_by_every_field,
        an_image_goes_by_all_its_names_and_with_any_of_them,
        a_volumes_folder_is_made_and_a_link_to_one_followed,
        a_pod_has_the_name_servers_and_parameters_it_is_given,
        namespaces_are_shared_as_asked,
        who_a_process_is_and_what_it_may_do_is_as_asked_or_refused,
        the_memory_limit_and_a_missing_command_are_told_by_their_reasons,
        every_event_has_the_whole_pod,
        the_newest_container_of_a_pod_comes_first,
        a_status_is_never_older_than_it_says,
        what_is_used_is_told_with_whose_it_is,
        a_checkpoint_is_restored_by_its_place_on_the_node,
        cdi_devices_are_what_their_files_say_or_refused,
    ];
    let tools = of![tools:
        a_container_tells_which_image_it_shows,
        what_pods_use_is_told_while_others_come_and_go,
        what_crictl_shows_besides_is_where_scripts_look_for_it,
    ];
    let tests: Vec<Test> = tests.into_iter().chain(words).chain(tools).collect();
    if args.iter().any(|arg| arg == "--list") {
        tests.iter().for_each(|test| println!("{}: test", test.name));
        return ExitCode::SUCCESS;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: containers need root; nothing of CRI was tested with real ones");
        return ExitCode::SUCCESS;
    }
    run(&tests, args.iter().find(|arg| !arg.starts_with('-')).map(String::as_str))
}

fn run(tests: &[Test], filter: Option<&str>) -> ExitCode {
    let chosen: Vec<&Test> =
        tests.iter().filter(|test| filter.is_none_or(|filter| test.name.contains(filter))).collect();
    println!("\nrunning {} tests", chosen.len());
    let mut failed = 0;
    for test in &chosen {
        let outcome = std::panic::catch_unwind(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let limit = std::time::Duration::from_secs(120);
            let done = runtime.block_on(async { tokio::time::timeout(limit, (test.run)()).await });
            runtime.shutdown_timeout(std::time::Duration::from_secs(1));
            done.expect("the test took more than two minutes");
        });
        println!("test {} ... {}", test.name, if outcome.is_ok() { "ok" } else { "FAILED" });
        failed += usize::from(outcome.is_err());
    }
    let (passed, out) = (chosen.len() - failed, tests.len() - chosen.len());
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {out} filtered out\n");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A client of the runtime on a socket.
async fn client(socket: &Path, dir: &Path) -> CriEngine {
    let config = CriClientConfig {
        endpoint: format!("unix://{}", socket.display()),
        owner: "the-tests".to_owned(),
        cgroup_root: format!("reeve-test-{}", dir.file_name().unwrap().to_string_lossy()),
        dir: dir.join("client"),
        clock: RealClock::shared(),
    };
    CriEngine::connect(config).await.unwrap()
}

/// Proves everything, one after the other.
async fn prove_all(engine: &CriEngine, dir: &Path) {
    let image = engine.image_status("busybox:latest").await.unwrap().expect("an image").id;
    for (number, promise) in ALL.iter().enumerate() {
        println!("  {}", promise.name);
        let engine = Arc::new(engine.clone());
        let ground = Ground { engine, image: image.clone(), dir: dir.join("seam"), name: format!("wire-{number}") };
        (promise.prove)(&ground).await;
    }
    assert!(engine.list_pod_sandboxes().await.unwrap().is_empty(), "nothing is left");
}
