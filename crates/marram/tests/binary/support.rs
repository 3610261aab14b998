//! What the tests have in common: a node of their own, and apps to put on it.

use std::path::{Path, PathBuf};

use marram_testkit::{Ask, Client, Reply, get};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::OnceCell;

pub use crate::process::{Ended, Marram, Running, marram};

/// `marram node` on free ports, with a state folder of its own.
pub struct Node {
    pub running: Running,
    pub http: Client,
    pub http_url: String,
    pub admin_url: String,
    pub home: TempDir,
}

impl Node {
    pub async fn start() -> Self {
        Self::start_in(home("").await).await
    }

    /// On what an earlier one left.
    pub async fn start_in(home: TempDir) -> Self {
        let mut running = start_node(&home).await;
        let (http_url, admin_url) = running.ready().await;
        Self { http: client(&http_url), running, http_url, admin_url, home }
    }

    /// The same as a child of another program, which has these arguments before the node's own.
    pub async fn start_under(home: TempDir, program: &str, arguments: &[&str]) -> Self {
        let mut running = node(&home).under(program, arguments).start().await;
        let (http_url, admin_url) = running.ready().await;
        Self { http: client(&http_url), running, http_url, admin_url, home }
    }

    /// The command line, talking to this node.
    pub fn marram(&self, args: &[&str]) -> Marram {
        marram(args).env("MARRAM_NODE", &self.admin_url)
    }

    /// Asks an app of `write_manifest`.
    pub async fn get(&self, app: &str, path: &str) -> Reply {
        ask(&self.http, app, path).await
    }

    /// Deploys the app in a folder.
    pub async fn deploy(&self, app: &Path) -> serde_json::Value {
        self.marram(&["deploy", "--json"]).at(app).json().await
    }

    pub async fn drain(self) -> Ended {
        self.running.signal(Signal::TERM);
        self.running.ended().await
    }
}

/// `marram node` in a folder of [`home`], which may not be ready yet.
pub async fn start_node(home: &TempDir) -> Running {
    node(home).start().await
}

fn node(home: &TempDir) -> Marram {
    let args = ["node", "--config", "node.toml", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    marram(&args).at(home.path())
}

/// Sends requests to the address of a URL that a node has printed.
pub fn client(url: &str) -> Client {
    Client::new(url.strip_prefix("http://").unwrap().parse().unwrap())
}

/// An empty folder. It lies where compiled code can be linked from.
pub fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A `GET` at the host of an app.
pub async fn ask(client: &Client, app: &str, path: &str) -> Reply {
    client.send(at(app, path)).await
}

/// The request of [`ask`].
pub fn at(app: &str, path: &str) -> Ask {
    get(path).header("host", &format!("{app}.example"))
}

/// What was printed with `--json`: one object a line, and nothing else.
#[track_caller]
pub fn lines(text: &str) -> Vec<serde_json::Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
    let lines: Vec<serde_json::Value> = text.lines().map(parse).collect();
    assert!(lines.iter().all(serde_json::Value::is_object), "{text}");
    lines
}

/// A folder with a `node.toml` of a small node, and a state whose code cache has the language engines already.
pub async fn home(toml: &str) -> TempDir {
    let home = folder();
    std::fs::write(home.path().join("node.toml"), format!("state = \"state\"\ninstances = 64\n{toml}")).unwrap();
    warm(&home.path().join("state")).await;
    home
}

/// Makes `state` a state folder that lends its compiled code from an earlier run: the language engines take a while.
pub async fn warm(state: &Path) {
    static COMPILED: OnceCell<PathBuf> = OnceCell::const_new();
    let compiled = COMPILED.get_or_init(compile).await;
    std::fs::create_dir_all(state.join("cache")).unwrap();
    std::fs::copy(compiled.join("cache.key"), state.join("cache.key")).unwrap();
    for file in std::fs::read_dir(compiled.join("cache")).unwrap() {
        let file = file.unwrap();
        std::fs::hard_link(file.path(), state.join("cache").join(file.file_name())).unwrap();
    }
}

/// Compiles the language engines, once for all runs of the tests.
async fn compile() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled");
    std::fs::create_dir_all(&folder).unwrap();
    let app = python_app("compiled");
    std::fs::write(app.path().join("index.js"), "export default { fetch: () => new Response() };\n").unwrap();
    let script =
        "[[function]]\nname = \"script\"\ncomponent = \"index.js\"\non = [{ http = \"compiled.example/script\" }]";
    write_manifest(app.path(), "compiled", "app.py", script);
    let (app, state) = (app.path().to_str().unwrap(), folder.join("state"));
    let state_text = state.to_str().unwrap();
    let mut up =
        marram(&["up", app, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state", state_text]).start().await;
    let (http, _) = up.ready().await;
    // An app that is there from an earlier run is brought back without its code, and the engines may be others by now: they are
    // compiled for the first who asks, for however long that takes.
    for path in ["/", "/script"] {
        eventually_answers(&client(&http), path).await;
    }
    up.signal(Signal::TERM);
    up.ended().await.expect(0);
    state
}

/// Asks until there is an answer: compiling goes on when a request has given up.
async fn eventually_answers(http: &Client, path: &str) {
    for _ in 0..20 {
        if ask(http, "compiled", path).await.status == 200 {
            return;
        }
    }
    panic!("{path} is not answered: the language engines cannot be compiled");
}

/// A folder with an app of one function, whose component is a guest of `make guests`.
pub fn guest_app(name: &str, guest: &str, more: &str) -> TempDir {
    let app = folder();
    std::fs::copy(marram_testkit::guest(guest), app.path().join("main.wasm")).unwrap();
    write_manifest(app.path(), name, "main.wasm", more);
    app
}

/// The same in Python.
pub fn python_app(name: &str) -> TempDir {
    let app = folder();
    write_python(app.path(), &format!("    return Response(\"Hello from {name}\")"));
    write_manifest(app.path(), name, "app.py", "");
    app
}

/// Saves `app.py` with this body of its `on_fetch`.
pub fn write_python(app: &Path, body: &str) {
    let text = format!("from marram import Response\n\n\ndef on_fetch(request, env):\n{body}\n");
    std::fs::write(app.join("app.py"), text).unwrap();
}

/// An app with one function, named `main`, on all paths of the app's own host.
pub fn write_manifest(app: &Path, name: &str, component: &str, more: &str) {
    let text = format!(
        "manifest_version = 1\n[app]\nname = \"{name}\"\nversion = \"1.0.0\"\n\n[[function]]\nname = \"main\"\n\
         component = \"{component}\"\non = [{{ http = \"{name}.example/...\" }}]\n{more}\n"
    );
    std::fs::write(app.join("marram.toml"), text).unwrap();
}
