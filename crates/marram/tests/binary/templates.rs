//! Each template as a newcomer meets it: made, built and served by the real binary, and asked once.
//!
//! Needs the toolchains that `make test` installs: the target wasm32-wasip2 for Rust, Node.js with npm for TypeScript.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use marram_testkit::Client;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Longer than anything that works takes: a build from nothing, or the first compilation of a language engine, while
/// other tests run.
const DEADLINE: Duration = Duration::from_secs(600);
/// Every template, and how its answer begins.
const TEMPLATES: [(&str, &str); 5] = [
    ("http-js", "Hello from JavaScript at /a\n"),
    ("http-python", "Hello from Python at http://"),
    ("http-rust", "Hello from Rust at /a\n"),
    ("http-rust-p3", "Hello from async Rust at /a\n"),
    ("http-ts", "Hello from TypeScript at /a\n"),
];

#[test]
fn every_template_is_tested() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../templates");
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, TEMPLATES.map(|(name, _)| name));
}

#[tokio::test]
async fn javascript() {
    check("http-js").await;
}

#[tokio::test]
async fn python() {
    check("http-python").await;
}

#[tokio::test]
async fn rust() {
    check("http-rust").await;
}

#[tokio::test]
async fn rust_with_wasi_0_3() {
    check("http-rust-p3").await;
}

#[tokio::test]
async fn typescript() {
    check("http-ts").await;
}

/// Makes the template's app, builds it, serves it, asks it, and has it drain.
async fn check(template: &str) {
    let expected = TEMPLATES.into_iter().find(|(name, _)| *name == template).unwrap().1;
    // Always the same folder, so that cargo knows the app again and builds its dependencies once.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("templates").join(template);
    let _ = std::fs::remove_dir_all(&folder);
    let app = folder.join("hello-app");
    std::fs::create_dir_all(&folder).unwrap();
    succeed(marram(&folder).args(["new", "hello-app", "--template", template])).await;
    succeed(marram(&app).arg("build")).await;

    let (mut up, http) = serve(&app).await;
    let reply = Client::new(http).get("/a?b=c").await.expect(200);
    assert!(reply.text().starts_with(expected), "{template} answered {reply:?}");
    let id = up.id().and_then(|id| Pid::from_raw(id.try_into().unwrap())).unwrap();
    kill_process(id, Signal::TERM).unwrap();
    let status = timeout(DEADLINE, up.wait()).await.expect("it drains").unwrap();
    assert!(status.success(), "{template} drained with {status}");
}

/// Builds an app where it is.
pub async fn build(app: &Path) {
    succeed(marram(app).arg("build")).await;
}

/// Starts `marram up`, and waits until it says where it serves.
async fn serve(app: &Path) -> (Child, SocketAddr) {
    let log = app.join("up.log");
    let mut command = marram(app);
    command.args(["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).stdout(Stdio::piped());
    let mut up = command.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    let mut lines = BufReader::new(up.stdout.take().unwrap()).lines();
    let line = timeout(DEADLINE, lines.next_line()).await.ok().and_then(|line| line.unwrap());
    let said = || std::fs::read_to_string(&log).unwrap();
    let line = line.unwrap_or_else(|| panic!("{} is not served:\n{}", app.display(), said()));
    (up, line.strip_prefix("http=http://").unwrap().parse().unwrap())
}

async fn succeed(command: &mut Command) {
    let output = timeout(DEADLINE, command.output()).await.expect("it ends").unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}:\n{said}", output.status);
}

/// The binary in a folder, as if nothing was set on this machine but a folder for everything that cargo makes: many have one,
/// and a template works there, too.
fn marram(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_marram"));
    command.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true).env("PATH", path());
    for variable in ["CARGO_BUILD_TARGET", "RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS"] {
        command.env_remove(variable);
    }
    command.env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("templates-elsewhere"));
    // What is not the app itself is kept from run to run.
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("templates-build");
    command.env("CARGO_BUILD_BUILD_DIR", kept).env("npm_config_prefer_offline", "true");
    command
}

/// The search path, beginning with the cargo that scripts/guest-toolchain.sh made, if this machine's own lacks the
/// target.
fn path() -> OsString {
    let toolchain = std::env::var_os("MARRAM_TOOLCHAIN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest-toolchain"), PathBuf::from);
    let usual = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(toolchain.join("bin")).chain(std::env::split_paths(&usual))).unwrap()
}
