//! The checks. Each looks at this machine and changes nothing.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::{Check, Verdict};
use crate::cli::ProjectArgs;
use crate::project::Project;

/// The target of Rust functions.
const TARGET: &str = "wasm32-wasip2";
/// A tool that does not say its version within this time is not usable.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything, in the order in which it is shown.
pub(super) async fn all(project: &ProjectArgs, state: Option<&Path>) -> anyhow::Result<Vec<Check>> {
    let project = Project::open(project);
    let commands: Vec<String> = project.as_ref().map_or_else(|_| Vec::new(), commands);
    let needs = |tools: &[&str]| commands.iter().any(|command| words(command).any(|word| tools.contains(&word)));
    let (rust, node, python) =
        (needs(&["cargo"]), needs(&["npm", "npx", "node"]), needs(&["componentize-py", "python", "python3", "pip"]));

    let mut checks = engines();
    checks.push(
        tool("Rust", "cargo", "--version", rust, "install Rust: the steps are at rust-lang.org/tools/install").await,
    );
    checks.push(target(rust).await);
    checks.push(
        tool(
            "JavaScript and TypeScript",
            "node",
            "--version",
            node,
            "JavaScript itself needs no tools; to compile TypeScript, install Node.js 20 or newer",
        )
        .await,
    );
    checks.push(tool("JavaScript and TypeScript", "npm", "--version", node, "it comes with Node.js").await);
    checks.push(tool("Python", "python3", "--version", python, "install Python 3.10 or newer").await);
    checks.push(tool("Python", "componentize-py", "--version", python, "pip install componentize-py").await);
    if let Ok(project) = &project {
        checks.extend(components(project));
    }
    let state = state
        .map(Path::to_path_buf)
        .or_else(|| project.ok().map(|project| project.state()).filter(|state| state.is_dir()));
    if let Some(state) = state {
        checks.push(integrity(state).await);
    }
    Ok(checks)
}

fn engines() -> Vec<Check> {
    let check = |engine: String| Check {
        group: "Engines in this binary",
        name: engine,
        verdict: Verdict::Ok,
        found: String::new(),
        hint: None,
    };
    marram_node::engines().into_iter().map(check).collect()
}

/// Runs `program --version`.
async fn tool(group: &'static str, program: &str, argument: &str, needed: bool, hint: &str) -> Check {
    let found = output_of(program, &[argument]).await;
    let verdict = if found.is_some() { Verdict::Ok } else { missing(needed) };
    let found = found.unwrap_or_else(|| "not found".into());
    let found = found.strip_prefix(program).unwrap_or(&found).trim().to_owned();
    Check { group, name: program.into(), verdict, found, hint: Some(hint.into()) }
}

/// The standard library for WebAssembly: in the toolchain, or in one that was unpacked beside it.
async fn target(needed: bool) -> Check {
    let name = format!("target {TARGET}");
    let check = |verdict, found: String| Check {
        group: "Rust",
        name: name.clone(),
        verdict,
        found,
        hint: Some(format!(
            "rustup target add {TARGET}; where rustup reaches no server: scripts/guest-toolchain.sh --from debian"
        )),
    };
    // A `cargo` that hands over to another compiler says so by having its own `rustc` beside it.
    if let Some(toolchain) = std::env::var_os("MARRAM_TOOLCHAIN").map(PathBuf::from)
        && toolchain.join("bin/rustc-guest").is_file()
    {
        return check(Verdict::Ok, format!("in {}", toolchain.display()));
    }
    let Some(sysroot) = output_of("rustc", &["--print", "sysroot"]).await else {
        return check(missing(needed), "no rustc".into());
    };
    let library = Path::new(&sysroot).join("lib/rustlib").join(TARGET).join("lib");
    if library.is_dir() {
        return check(Verdict::Ok, "installed".into());
    }
    if Path::new(&sysroot).join("lib/rustlib/src/rust/library/std").is_dir() {
        return check(
            missing(needed),
            "not installed; the library's sources are, so a nightly `-Zbuild-std` works".into(),
        );
    }
    check(missing(needed), "not installed".into())
}

fn components(project: &Project) -> Vec<Check> {
    let mut checks = Vec::new();
    for function in &project.manifest.functions {
        let there = project.component(function).is_file();
        let hint = if function.build.is_some() { "marram build" } else { "correct its `component`, or add a `build`" };
        checks.push(Check {
            group: "Components of this app",
            name: function.name.to_string(),
            verdict: if there { Verdict::Ok } else { missing(function.build.is_none()) },
            found: if there { function.component.clone() } else { format!("{} is not there", function.component) },
            hint: Some(hint.into()),
        });
    }
    checks
}

/// Reads the whole store: seconds, if it is large.
async fn integrity(state: PathBuf) -> Check {
    let shown = crate::project::shown(&state);
    let checked = tokio::task::spawn_blocking(move || marram_node::check_state_dir(&state)).await;
    let (verdict, found) = match checked {
        Ok(Ok(findings)) if findings.is_empty() => (Verdict::Ok, "whole".to_owned()),
        Ok(Ok(findings)) => (Verdict::Bad, findings.join("\n    ")),
        Ok(Err(error)) => (Verdict::Bad, format!("{error:#}")),
        Err(error) => (Verdict::Bad, format!("the check broke off: {error}")),
    };
    Check { group: "State", name: shown, verdict, found, hint: None }
}

const fn missing(needed: bool) -> Verdict {
    if needed { Verdict::Bad } else { Verdict::Missing }
}

fn commands(project: &Project) -> Vec<String> {
    let builds = project.manifest.functions.iter().filter_map(|function| function.build.as_ref());
    builds.map(|build| build.command.clone()).collect()
}

/// The words of a shell command, a path's last part each: `.venv/bin/componentize-py` is `componentize-py`.
fn words(command: &str) -> impl Iterator<Item = &str> {
    command.split(|c: char| c.is_whitespace() || ";&|()".contains(c)).filter_map(|word| word.rsplit('/').next())
}

/// The first line of what a program says.
async fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned();
    output.status.success().then_some(text)
}
