//! `marram completions`: what a shell reads to complete a command line.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::output;

/// Prints the completions of a shell.
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// The shell; if left out, the one of $SHELL
    shell: Option<Shell>,
}

/// Prints them.
pub(crate) fn run(args: &Completions) -> anyhow::Result<()> {
    let shell = args.shell.or_else(Shell::from_env).unwrap_or(Shell::Bash);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "marram", &mut script);
    Ok(output::bytes(&script)?)
}
