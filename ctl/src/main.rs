//! The `reeve` binary: the CLI, the cluster verbs and every component.

mod backup;
mod cli;
mod cluster;
mod engine;
mod images;
mod kubectl;
mod logging;
mod servers;

use std::process::ExitCode;

use clap::Parser as _;

/// The allocator of all threads. The C library's took a third of the server's time under load: its heaps are shared,
/// and one for each thread would keep what was freed in it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The containers' parent is this same program: it must not even parse a command line.
    if let Some(code) = reeve_engine::supervisor::supervisor_main(std::env::args_os()) {
        return code;
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) => {
            // Help goes to standard output with code 0, mistakes to standard error with code 1, as kubectl does.
            let code = if err.use_stderr() { 1 } else { 0 };
            let _ = err.print();
            return ExitCode::from(code);
        }
    };
    let cli = match cli.run_cluster_verb() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    cli.prepare();
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(cli::run(cli));
            // A thread may still wait for standard input: it must not keep the program alive.
            runtime.shutdown_background();
            code
        }
        Err(err) => {
            eprintln!("error: cannot start: {err}");
            ExitCode::FAILURE
        }
    }
}
