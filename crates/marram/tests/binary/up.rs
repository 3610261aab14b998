//! `marram up`: what is saved runs, what is broken does not, and Ctrl-C drains.

use marram_testkit::{Client, Reply, eventually};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{Running, ask, at, client, folder, marram, python_app, warm, write_manifest, write_python};

/// `marram up` on free ports, in the folder of an app.
struct Up {
    running: Running,
    http: Client,
    app: TempDir,
}

async fn up(app: TempDir) -> Up {
    warm(&app.path().join(".marram")).await;
    let arguments = ["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let mut running = marram(&arguments).at(app.path()).start().await;
    let (http, _) = running.ready().await;
    Up { running, http: client(&http), app }
}

impl Up {
    async fn get(&self, app: &str) -> Reply {
        ask(&self.http, app, "/").await
    }

    async fn answers(&self, app: &str, text: &str) {
        eventually(text, || async { (self.get(app).await.text() == text).then_some(()) }).await;
    }
}

#[tokio::test]
async fn what_is_saved_is_the_next_answer() {
    let here = folder();
    marram(&["new", "shop", "--template", "http-python"]).at(here.path()).done().await;
    let app = folder();
    for file in ["app.py", "marram.toml"] {
        std::fs::copy(here.path().join("shop").join(file), app.path().join(file)).unwrap();
    }
    let mut up = up(app).await;
    assert!(up.get("shop").await.expect(200).text().starts_with("Hello from Python"));
    assert_eq!(std::fs::read_to_string(up.app.path().join(".marram/.gitignore")).unwrap(), "*\n");
    for n in 1..=3 {
        write_python(up.app.path(), &format!("    return Response(\"saved {n}\")"));
        up.answers("shop", &format!("saved {n}")).await;
    }
    up.running.says("swapped shop").await;

    // What functions log is shown, and is no data.
    write_python(up.app.path(), "    print(\"a line of the log\")\n    return Response(\"logged\")");
    up.answers("shop", "logged").await;
    up.running.says("a line of the log").await;
    assert_eq!(up.running.stdout().lines().count(), 2);
    up.running.signal(Signal::INT);
    up.running.ended().await.expect(0).says(&["draining"]);
}

#[tokio::test]
async fn a_broken_save_is_shown_and_leaves_the_last_revision_serving() {
    let mut up = up(python_app("shop")).await;
    write_manifest(up.app.path(), "shop", "app.py", "limit = {}");
    up.running.says("did you mean `limits`?").await;
    up.running.says("the last revision keeps serving").await;
    assert_eq!(up.get("shop").await.expect(200).text(), "Hello from shop");
    write_manifest(up.app.path(), "shop", "app.py", "");
    write_python(up.app.path(), "    return Response(");
    up.running.says("app.py:5:").await;
    up.running.says("SyntaxError").await;
    assert_eq!(up.get("shop").await.expect(200).text(), "Hello from shop");

    write_manifest(up.app.path(), "shop", "app.py", "config = { currency = \"EUR\" }");
    write_python(up.app.path(), "    return Response(env[\"currency\"])");
    up.answers("shop", "EUR").await;
    // The app under another name takes the place of the old one.
    write_manifest(up.app.path(), "store", "app.py", "config = { currency = \"USD\" }");
    up.answers("store", "USD").await;
    eventually("the old name is gone", || async { (up.get("shop").await.status == 404).then_some(()) }).await;
}

#[tokio::test]
async fn a_build_that_fails_is_shown_and_one_that_works_is_swapped_in() {
    let app = folder();
    let build = "build = { command = \"cat source.txt && cp source.txt app.py\", watch = [\"source.txt\"] }";
    write_manifest(app.path(), "shop", "app.py", build);
    let source = |text: &str| format!("def on_fetch(request):\n    return {text:?}\n");
    std::fs::write(app.path().join("source.txt"), source("one")).unwrap();
    let mut up = up(app).await;
    up.answers("shop", "one").await;
    std::fs::remove_file(up.app.path().join("source.txt")).unwrap();
    let said = up.running.says("the build of main failed").await;
    assert!(said.contains("source.txt: No such file"), "{said}");
    up.running.says("the last revision keeps serving").await;
    assert_eq!(up.get("shop").await.expect(200).text(), "one");
    std::fs::write(up.app.path().join("source.txt"), source("two")).unwrap();
    up.answers("shop", "two").await;
}

#[tokio::test]
async fn ctrl_c_finishes_what_runs() {
    let app = folder();
    std::fs::copy(marram_testkit::guest("probe-p2"), app.path().join("main.wasm")).unwrap();
    write_manifest(app.path(), "shop", "main.wasm", "");
    let up = up(app).await;
    let answer = up.http.open(at("shop", "/slow-stream/10/30")).await.unwrap();
    up.running.signal(Signal::INT);
    let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    assert_eq!(String::from_utf8_lossy(&body).lines().count(), 10);
    up.running.ended().await.expect(0);
}

#[tokio::test]
async fn it_goes_on_where_it_stopped() {
    let Up { running, app, .. } = up(python_app("shop")).await;
    running.kill().await;
    let arguments = ["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let mut running = marram(&arguments).at(app.path()).start().await;
    let (http, _) = running.ready().await;
    assert_eq!(ask(&client(&http), "shop", "/").await.expect(200).text(), "Hello from shop");
}
