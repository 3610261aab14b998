//! The `marram` binary: parse → run → drain → exit.
//!
//! Only this file ends the process. Verbs live in [`cmd`], one file each; all but `up` and `node` are clients of the
//! admin API, or work on local files.

mod building;
mod cli;
mod client;
mod cmd;
mod data;
mod descriptors;
mod exit;
mod heap;
mod log_line;
mod output;
mod progress;
mod project;
mod reference;
mod serving;
mod session;
mod signals;
mod stale;
mod table;
mod template;
mod tls;
mod units;
mod wants;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::Cli;
use crate::exit::Exit;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version arrive here too; they go to stdout and are no failure.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    // Several crates can bring a TLS provider; the process uses this one. Fails only if one is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();

    match runtime(&cli).and_then(|runtime| {
        let ended = runtime.block_on(cmd::run(cli));
        // A read of stdin cannot be taken back: waiting for it would hold a finished command until the next line.
        runtime.shutdown_background();
        ended
    }) {
        Ok(exit) => exit.into(),
        Err(error) => exit::report(&error).into(),
    }
}

/// A node uses every core; a client is done sooner with one thread.
fn runtime(cli: &Cli) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = match cli.command {
        cli::Command::Up(_) | cli::Command::Node(_) => {
            descriptors::make_room()?;
            heap::give_back_large_blocks();
            tokio::runtime::Builder::new_multi_thread()
        }
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    Ok(builder.enable_all().build()?)
}
