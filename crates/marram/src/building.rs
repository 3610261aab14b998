//! Runs the builds of a manifest: shell commands, in its folder, each ended together with everything it started.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use marram_core::manifest::Function;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::exit::{Exit, Problem};
use crate::output;

/// Of a build's output, this much is kept to be shown if it fails; the error is at the end.
const OUTPUT_BYTES_MAX: usize = 256 << 10;
/// Lines on their way from a build to the screen.
const LINES_QUEUED_MAX: usize = 256;

/// One command, and the functions that it builds: functions of one workspace share theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// The shell command.
    pub(crate) command: String,
    /// The functions, in the manifest's order.
    pub(crate) functions: Vec<String>,
}

impl Job {
    /// What it is called in messages.
    pub(crate) fn title(&self) -> String {
        self.functions.join(", ")
    }
}

/// The builds of these functions, each command once, in the manifest's order.
pub(crate) fn jobs<'a>(functions: impl IntoIterator<Item = &'a Function>) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    for function in functions {
        let Some(build) = &function.build else { continue };
        match jobs.iter_mut().find(|job| job.command == build.command) {
            Some(job) => job.functions.push(function.name.to_string()),
            None => jobs.push(Job { command: build.command.clone(), functions: vec![function.name.to_string()] }),
        }
    }
    jobs
}

/// The error of a build that ended well, where the function's component is not there all the same.
pub(crate) fn made_nothing(function: &Function) -> Problem {
    let (name, component) = (&function.name, &function.component);
    let message = format!("the build of {name} ended well, but its component {component} is not there");
    let mut hint = "compare `component` with what the build writes".to_owned();
    let by_cargo = function.build.as_ref().is_some_and(|build| build.command.contains("cargo"));
    if let Some(folder) = std::env::var_os("CARGO_TARGET_DIR").filter(|_| by_cargo) {
        let folder = Path::new(&folder).display();
        hint = format!("{hint}: `CARGO_TARGET_DIR` is {folder}, which cargo's `--target-dir target` overrides");
    }
    Problem::new(Exit::Build, message).hint(hint)
}

/// Runs a build in the foreground: its output goes to stderr as it comes. Returns how long it took.
pub(crate) async fn in_foreground(folder: &Path, job: &Job) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    // Stdout is for data; what a build says is a message.
    let stderr = rustix::io::dup(std::io::stderr()).context("cannot duplicate stderr")?;
    let mut command = shell(folder, job);
    let status =
        command.stdout(Stdio::from(stderr)).status().await.with_context(|| format!("cannot run {:?}", job.command))?;
    if status.success() { Ok(begun.elapsed()) } else { Err(failed(job, status).into()) }
}

/// Runs a build in the background. `progress` gets each line of its output; if it fails, `Err` has the end of it.
/// Dropping the future ends the build.
pub(crate) async fn in_background(folder: &Path, job: &Job, progress: impl Fn(&str)) -> Result<Duration, Failed> {
    let begun = Instant::now();
    let broken = |error: std::io::Error| Failed {
        problem: Problem::new(Exit::Build, format!("cannot run {:?}: {error}", job.command)),
        output: String::new(),
    };
    let mut command = shell(folder, job);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    if output::stderr_is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = command.spawn().map_err(broken)?;
    let _group = Group::of(&child);
    let (sender, mut lines) = mpsc::channel(LINES_QUEUED_MAX);
    let read =
        futures::future::join(copy_lines(child.stdout.take(), sender.clone()), copy_lines(child.stderr.take(), sender));
    let mut kept = String::new();
    let show = async {
        while let Some(line) = lines.recv().await {
            progress(&line);
            keep(&mut kept, &line);
        }
    };
    let ((_, ()), status) = futures::future::join(futures::future::join(read, show), child.wait()).await;
    let status = status.map_err(broken)?;
    if status.success() { Ok(begun.elapsed()) } else { Err(Failed { problem: failed(job, status), output: kept }) }
}

/// A build that failed, and the end of what it said.
#[derive(Debug)]
pub(crate) struct Failed {
    /// In one line.
    pub(crate) problem: Problem,
    /// What it said.
    pub(crate) output: String,
}

fn shell(folder: &Path, job: &Job) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(&job.command).current_dir(folder).stdin(Stdio::null());
    command
}

fn failed(job: &Job, status: std::process::ExitStatus) -> Problem {
    let how = match status.code() {
        Some(127) => "its program is not installed".to_owned(),
        Some(code) => format!("exit code {code}"),
        None => format!("ended by {status}"),
    };
    let problem = Problem::new(Exit::Build, format!("the build of {} failed: {how} ({})", job.title(), job.command));
    if status.code() == Some(127) { problem.hint("`marram doctor` says which toolchains are missing") } else { problem }
}

/// Lossy, because a compiler may quote a source that is not UTF-8.
async fn copy_lines(from: Option<impl AsyncRead + Unpin>, to: mpsc::Sender<String>) {
    let Some(from) = from else { return };
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    while matches!(reader.read_until(b'\n', &mut line).await, Ok(1..)) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if to.send(text).await.is_err() {
            return;
        }
        line.clear();
    }
}

fn keep(kept: &mut String, line: &str) {
    kept.push_str(line);
    kept.push('\n');
    if kept.len() > OUTPUT_BYTES_MAX {
        let cut = kept.len() - OUTPUT_BYTES_MAX / 2;
        let cut = kept[cut..].find('\n').map_or(cut, |at| cut + at + 1);
        // A line break is a boundary; without one the text is a single huge line, and goes whole.
        if kept.is_char_boundary(cut) {
            kept.drain(..cut);
        } else {
            kept.clear()
        }
    }
}

/// A process group, ended when dropped: the shell alone would leave its compiler running.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Gone already is the usual case.
            let _ = kill_process_group(group, Signal::TERM);
        }
    }
}
