//! `marram up`: what is saved runs, what is broken does not, and Ctrl-C drains.

use http::Method;
use marram_testkit::{Ask, Client, Reply, S3Key, eventually};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::mqtt;
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
    // What happens now stands last, after the trace.
    up.running.says("^\nSyntaxError: '(' was never closed\nthe last revision keeps serving\n").await;
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
    // It ends well, and what the manifest names is not there.
    write_manifest(up.app.path(), "shop", "other.py", build);
    let elsewhere =
        "error: the build of main ended well, but its component other.py is not there\nhint: compare `component`";
    up.running.says(elsewhere).await;
}

#[tokio::test]
async fn files_that_a_save_of_the_manifest_names_too_early_are_deployed_when_they_are_there() {
    let mut up = up(python_app("shop")).await;
    let function = |name: &str, file: &str| {
        format!("[[function]]\nname = \"{name}\"\ncomponent = \"{file}\"\non = [{{ http = \"{name}.example/\" }}]\n")
    };
    let early = [function("now", "now.py"), function("later", "deep/er/app.py")].concat();
    write_manifest(up.app.path(), "shop", "app.py", &early);
    let said = up.running.says("it is deployed when the file is there").await;
    for part in ["function \"now\": cannot read its component now.py", "its component deep/er/app.py"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    up.running.says("the last revision keeps serving").await;
    up.answers("shop", "Hello from shop").await;

    let body = |text: &str| format!("def on_fetch(request):\n    return {text:?}\n");
    std::fs::write(up.app.path().join("now.py"), body("now")).unwrap();
    std::fs::create_dir_all(up.app.path().join("deep/er")).unwrap();
    std::fs::write(up.app.path().join("deep/er/app.py"), body("later")).unwrap();
    up.answers("later", "later").await;
    up.answers("now", "now").await;
}

#[tokio::test]
async fn what_a_start_cannot_do_ends_it_or_waits_for_a_save() {
    let app = folder();
    write_manifest(app.path(), "shop", "app.py", "");
    let nowhere = marram(&["up", "nowhere"]).at(app.path()).run().await.expect(5).without_data();
    nowhere.says(&["cannot open nowhere", "hint: name the folder of an app, or its marram.toml"]);
    let run = || marram(&["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).at(app.path());
    let missing = run().run().await.expect(5).without_data();
    let missing = missing.says(&["function \"main\": its component app.py is not there", "hint: write the path"]);
    assert!(!missing.stderr.contains("draining"), "nothing was started: {missing:?}");

    write_manifest(app.path(), "shop", "app.py", "build = { command = \"false\", watch = [\"*.txt\"] }");
    let mut up = run().start().await;
    up.says("the build of main failed").await;
    up.says("waiting for a change; Ctrl-C ends it").await;
    up.signal(Signal::INT);
    up.ended().await.expect(0);
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

/// An app of a stream of MQTT topics and a bucket, without any function.
fn site() -> TempDir {
    let app = folder();
    let manifest =
        "manifest_version = 1\n[app]\nname = \"site\"\n[stream.readings]\nmqtt = [\"plant/#\"]\n[bucket.uploads]\n";
    std::fs::write(app.path().join("marram.toml"), manifest).unwrap();
    app
}

#[tokio::test]
async fn an_app_that_uses_mqtt_and_objects_has_listeners_for_them() {
    // Whoever comes second has other ports.
    let mut ports = std::collections::BTreeSet::new();
    let mut running = Vec::new();
    for _ in 0..2 {
        let app = site();
        let mut up = up(app).await;
        let printed = up.running.prints("s3=http://127.0.0.1:").await;
        let of = |name: &str| printed.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        let (mqtt_at, s3, admin) = (of("mqtt=mqtt://"), of("s3="), client(&of("admin=")));
        ports.extend([mqtt_at.clone(), s3.clone()]);
        mqtt::connect(&mqtt_at, "device").await.unwrap();
        let said = up.running.says("AWS_SECRET_ACCESS_KEY=").await;
        let line = said.lines().find(|line| line.contains("AWS_ACCESS_KEY_ID=")).unwrap();
        let value = |name: &str| {
            let value = line.split_once(name).unwrap().1;
            value.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect::<String>()
        };
        let key = S3Key::new(&value("AWS_ACCESS_KEY_ID="), &value("AWS_SECRET_ACCESS_KEY="));
        let host = s3.strip_prefix("http://").unwrap().parse().unwrap();
        let put = key.sign(Ask::new(Method::PUT, "/uploads/x").body("content"), host);
        let _ = client(&s3).send(put).await.expect(200);
        assert_eq!(admin.get("/v1/objects/uploads/x").await.expect(200).text(), "content");
        running.push(up);
    }
    assert_eq!(ports.len(), 4, "{ports:?}");

    // The command line has the last word.
    let app = site();
    let arguments = ["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--mqtt", "off", "--s3", "127.0.0.1:0"];
    let mut silent = marram(&arguments).at(app.path()).start().await;
    let printed = silent.prints("s3=http://127.0.0.1:").await;
    assert!(!printed.contains("mqtt="), "{printed}");
    silent.signal(Signal::INT);
    let ended = silent.ended().await.expect(0);
    assert!(!ended.stdout.contains("mqtt="), "{ended:?}");
    // An app that comes to use it while it is served is told what to do.
    let mut plain = up(python_app("shop")).await;
    assert_eq!(plain.running.stdout().lines().count(), 2);
    write_manifest(plain.app.path(), "shop", "app.py", "allow = { mqtt = [\"commands/#\"] }");
    plain.running.says("start `marram up` again").await;
}
