//! Checks and generators of this repository: `cargo xtask <task>`.

#![allow(clippy::print_stdout, reason = "a command line tool")]

mod directions;
mod docs;
mod licences;

use std::process::ExitCode;

use anyhow::bail;

const USAGE: &str = "usage: cargo xtask <task>
  check          every check below
  directions     crates depend only on what ARCHITECTURE.md allows
  licences       every dependency has a permissive licence
  docs           write the generated pages of docs/book
  docs --check   fail if a generated page is out of date";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> anyhow::Result<()> {
    match arguments {
        ["check"] => {
            directions::check()?;
            licences::check()?;
            docs::run(docs::Mode::Check)
        }
        ["directions"] => directions::check(),
        ["licences"] => licences::check(),
        ["docs"] => docs::run(docs::Mode::Write),
        ["docs", "--check"] => docs::run(docs::Mode::Check),
        _ => bail!("{USAGE}"),
    }
}

/// `cargo metadata` of the workspace.
fn metadata(arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = std::process::Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(arguments)
        .output()?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
