//! `marram build`: the commands of the manifest, each once, and what is said of one that fails.

use std::path::Path;

use tempfile::TempDir;

use crate::support::{Node, folder, marram};

/// Two functions with one build, and one with its own. Each build writes a line to `ran`.
fn app() -> TempDir {
    let app = folder();
    std::fs::create_dir(app.path().join("src")).unwrap();
    std::fs::write(app.path().join("src/a.txt"), "a").unwrap();
    std::fs::copy(marram_testkit::guest("hello-p2"), app.path().join("guest.wasm")).unwrap();
    let function = |name: &str, component: &str, command: &str| {
        format!(
            "[[function]]\nname = \"{name}\"\ncomponent = \"{component}\"\n\
             build = {{ command = \"{command}\", watch = [\"src/*.txt\"] }}\n"
        )
    };
    let shared = "echo shared >> ran; echo shared says hello; cp guest.wasm a.wasm; cp guest.wasm b.wasm";
    let own = "echo own >> ran; cp guest.wasm c.wasm";
    let text = "manifest_version = 1\n[app]\nname = \"shop\"\n".to_owned()
        + &function("a", "a.wasm", shared)
        + &function("b", "b.wasm", shared)
        + &function("c", "c.wasm", own);
    std::fs::write(app.path().join("marram.toml"), text).unwrap();
    app
}

fn ran(app: &Path) -> String {
    std::fs::read_to_string(app.join("ran")).unwrap_or_default()
}

#[tokio::test]
async fn each_command_runs_once_and_only_what_is_stale() {
    let app = app();
    let built = marram(&["build"]).at(app.path()).run().await.expect(0).without_data();
    built.says(&["building a, b", "shared says hello", "built a", "built b", "built c"]);
    assert_eq!(ran(app.path()), "shared\nown\n");
    let nothing = marram(&["build", "--stale"]).at(app.path()).run().await;
    nothing.expect(0).without_data().says(&["nothing to build"]);
    let newer = std::fs::File::options().write(true).open(app.path().join("src/a.txt")).unwrap();
    newer.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(60)).unwrap();
    // From within, and only one of them.
    marram(&["build", "--stale", "--function", "c"]).at(&app.path().join("src")).done().await;
    assert_eq!(ran(app.path()), "shared\nown\nown\n");
    let unknown = marram(&["build", "--function", "d"]).at(app.path()).run().await;
    unknown.expect(5).without_data().says(&["no function \"d\"", "hint: it has a, b, c"]);
}

#[tokio::test]
async fn a_build_that_fails_says_what_it_was() {
    let app = app();
    let manifest = std::fs::read_to_string(app.path().join("marram.toml")).unwrap();
    let with = |command: &str| {
        let text = manifest.replace("echo own >> ran; cp guest.wasm c.wasm", command);
        std::fs::write(app.path().join("marram.toml"), text).unwrap();
        marram(&["build", "--function", "c"]).at(app.path())
    };
    let failed = with("echo 'line 3: no such thing' >&2; exit 7").run().await.expect(8).without_data();
    failed.says(&["line 3: no such thing", "the build of c failed: exit code 7"]);
    let missing = with("no-such-compiler c").run().await.expect(8).without_data();
    missing.says(&["its program is not installed", "hint: `marram doctor`"]);
    let elsewhere = with("cp guest.wasm d.wasm").run().await.expect(8).without_data();
    let elsewhere = elsewhere.says(&["its component c.wasm is not there", "hint: compare `component`"]);
    assert!(!elsewhere.stderr.contains("CARGO"), "cargo has no part in it: {elsewhere:?}");
    let cargo = with(": cargo build").env("CARGO_TARGET_DIR", "/builds").run().await.expect(8).without_data();
    cargo.says(&["hint: compare `component`", "`CARGO_TARGET_DIR` is /builds", "`--target-dir target`"]);
}

#[tokio::test]
async fn a_deployment_can_build_first() {
    let node = Node::start().await;
    let app = app();
    let missing = node.marram(&["deploy"]).at(app.path()).run().await;
    missing.expect(5).without_data().says(&["a.wasm is not there", "hint: build it with `marram build`"]);
    let deployed = node.marram(&["deploy", "--build", "--json"]).at(app.path()).json().await;
    assert_eq!(deployed["functions"].as_array().unwrap().len(), 3);
    assert_eq!(ran(app.path()), "shared\nown\n");
    let newer = std::fs::File::options().write(true).open(app.path().join("src/a.txt")).unwrap();
    newer.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(60)).unwrap();
    let old = node.marram(&["deploy"]).at(app.path()).run().await;
    old.expect(0).says(&["warning:", "older than its sources", "unchanged shop"]);
}
