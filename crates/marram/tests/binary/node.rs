//! `marram node`: what it says when it is ready, how it ends, and what it refuses to start with.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;

use crate::support::{Node, at, client, folder, guest_app, home, marram};

/// SIGHUP; below `nohup`, tests and nodes ignore it.
fn hangup() -> Option<Signal> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    (u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 0).then_some(Signal::HUP)
}

#[tokio::test]
async fn a_node_says_where_it_serves_and_ends_with_a_signal() {
    for signal in [Signal::TERM, Signal::INT].into_iter().chain(hangup()) {
        let node = Node::start().await;
        assert!(node.http.get("/nothing").await.status == 404);
        assert_eq!(client(&node.admin_url).get("/v1/health").await.expect(200).json()["status"], "ready");
        let (http, admin) = (node.http_url.clone(), node.admin_url.clone());
        node.running.signal(signal);
        let ended = node.running.ended().await.expect(0).says(&["draining"]);
        assert_eq!(ended.stdout, format!("http={http}\nadmin={admin}\n"));
    }
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_a_second_signal_does_not() {
    let app = guest_app("shop", "probe-p2", "");
    let terminated = [(Signal::TERM, None, 0), (Signal::TERM, Some(Signal::TERM), 130)];
    // A terminal that closes hangs up twice.
    let hung_up = hangup().map(|signal| (signal, Some(signal), 0));
    for (first, second, code) in terminated.into_iter().chain(hung_up) {
        let node = Node::start().await;
        node.deploy(app.path()).await;
        // Chunks, 30 ms apart: the first one is here, the others are to come.
        let path = if code == 130 { "/slow-stream/1000/30" } else { "/slow-stream/10/30" };
        let answer = node.http.open(at("shop", path)).await.unwrap();
        let Node { mut running, .. } = node;
        running.signal(first);
        running.says("draining").await;
        if let Some(second) = second {
            running.signal(second);
        }
        let body = http_body_util::BodyExt::collect(answer.into_body()).await;
        assert_eq!(body.is_err(), code == 130);
        running.ended().await.expect(code);
    }
}

#[tokio::test]
async fn a_node_that_may_open_too_few_files_says_so_and_does_not_start() {
    let here = home("").await;
    let flags = ["node", "--config", "node.toml", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let limit = |files: u32| format!("ulimit -n {files} && exec \"$0\" \"$@\"");
    for files in [20, 63] {
        let limited = marram(&flags).at(here.path()).under("sh", &["-c", &limit(files)]);
        let refused = limited.run().await.expect(1).without_data();
        refused.says(&[&format!("only {files} files"), "needs 64", "hint: raise `ulimit -n`", "LimitNOFILE"]);
        assert!(!here.path().join("state/node.db").exists());
    }
    // The fewest that it takes are enough.
    let mut running = marram(&flags).at(here.path()).under("sh", &["-c", &limit(64)]).start().await;
    let (http, _) = running.ready().await;
    assert_eq!(client(&http).get("/nothing").await.status, 404);
    running.signal(Signal::TERM);
    running.ended().await.expect(0).says(&["warning: only 64 files"]);
}

/// Its folder may have been there before, with the mode that folders have.
#[tokio::test]
async fn what_a_node_keeps_is_its_owner_s_alone() {
    let here = home("").await;
    let state = here.path().join("state");
    let open = |path: &str, mode| std::fs::set_permissions(state.join(path), Permissions::from_mode(mode)).unwrap();
    std::fs::write(state.join("telemetry.db"), "").unwrap();
    open("telemetry.db", 0o644);
    open("cache", 0o755);
    open("", 0o755);
    let node = Node::start_in(here).await;
    let mode = |path: &str| std::fs::metadata(node.home.path().join("state").join(path)).unwrap().permissions().mode();
    for file in ["node.db", "node.db-wal", "secret.key", "cache.key", "telemetry.db", "telemetry.db-wal"] {
        assert_eq!(mode(file) & 0o777, 0o600, "{file}");
    }
    for folder in ["cache", "blobs"] {
        assert_eq!(mode(folder) & 0o777, 0o700, "{folder}");
    }
    node.drain().await.expect(0);
    // A file in the place of the folder.
    let file = folder();
    std::fs::write(file.path().join("state"), "").unwrap();
    let refused =
        marram(&["node", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state", "state"]).at(file.path());
    refused.run().await.expect(1).without_data().says(&["is a file", "choose another folder"]);
}

#[tokio::test]
async fn a_wrong_configuration_shows_its_line() {
    let here = home("listn = \"127.0.0.1:0\"").await;
    let node = || marram(&["node", "--config", "node.toml"]).at(here.path());
    node().run().await.expect(6).without_data().says(&["node.toml", "line 3", "did you mean `listen`?"]);
    std::fs::write(here.path().join("node.toml"), "admin = \"0.0.0.0:0\"\nlisten = \"127.0.0.1:0\"").unwrap();
    node().run().await.expect(1).without_data().says(&["token_file", "admin_tls"]);
    std::fs::remove_file(here.path().join("node.toml")).unwrap();
    node().run().await.expect(5).without_data().says(&["node.toml", "cannot be read", "hint: write that file"]);
    std::fs::write(here.path().join("node.toml"), "token_file = \"none\"").unwrap();
    node().run().await.expect(5).without_data().says(&["`token_file`: none cannot be read", "hint: write that file"]);
    std::fs::write(here.path().join("node.toml"), "listen = \"localhost:3000\"").unwrap();
    node().run().await.expect(6).without_data().says(&["line 1", "hint: write address and port"]);
    for address in ["3000", ":3000", "localhost:3000"] {
        for flag in ["--listen", "--admin", "--mqtt", "--s3"] {
            let refused = marram(&["node", flag, address]).run().await.expect(2).without_data();
            refused.says(&[flag, "write address and port, such as 127.0.0.1:3000"]);
        }
    }
    marram(&["node", "--lisen", "127.0.0.1:0"]).run().await.expect(2).without_data().says(&["--listen"]);
    marram(&["node", "--log", "a=b=c"]).run().await.expect(2).without_data().says(&["a=b=c", "hint: "]);
}

#[tokio::test]
async fn what_another_node_has_is_refused() {
    let node = Node::start().await;
    let taken = node.http_url.strip_prefix("http://").unwrap();
    let other = home("").await;
    let refused = marram(&["node", "--listen", taken, "--admin", "127.0.0.1:0"]).at(other.path()).run().await;
    refused.expect(1).without_data().says(&[taken, "another program has it", "`--listen`"]);
    let state = node.home.path().join("state");
    let arguments = ["node", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state", state.to_str().unwrap()];
    let refused = marram(&arguments).at(other.path()).run().await;
    refused.expect(1).without_data().says(&["in use by another process", "choose another directory"]);
    // The same command again finds both taken: the port is not the reason.
    let arguments = ["node", "--listen", taken, "--admin", "127.0.0.1:0", "--state", state.to_str().unwrap()];
    let refused = marram(&arguments).at(other.path()).run().await;
    refused.expect(1).without_data().says(&["in use by another process", "choose another directory"]);
}

#[tokio::test]
async fn the_token_comes_from_a_file_or_the_environment() {
    let token = "0123456789abcdef";
    let here = folder();
    std::fs::write(here.path().join("token"), format!("{token}\n")).unwrap();
    std::fs::write(here.path().join("node.toml"), "token_file = \"token\"\ninstances = 64").unwrap();
    let node = Node::start_in(here).await;
    node.marram(&["apps"]).run().await.expect(4).without_data().says(&["hint: give the node's token"]);
    let wrong = node.marram(&["apps"]).env("MARRAM_TOKEN", "0123456789abcdeF").run().await;
    wrong.expect(4).without_data();
    let invoked = node.marram(&["invoke", "shop/main"]).run().await;
    invoked.expect(4).without_data().says(&["error: ", "hint: give the node's token"]);
    node.marram(&["apps"]).env("MARRAM_TOKEN", token).done().await;
    node.marram(&["apps", "--token", token]).done().await;
    let ended = node.drain().await;
    assert!(!ended.stderr.contains(token), "{ended:?}");
}

#[tokio::test]
async fn its_own_log_can_be_read_by_programs() {
    let here = home("").await;
    let flags = ["node", "--config", "node.toml", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let run = |more: &[&str]| marram(&[&flags[..], more].concat()).at(here.path());
    let mut node = run(&["--log-format", "json", "--log", "marram_store=debug,info"]).start().await;
    node.ready().await;
    node.signal(Signal::TERM);
    let ended = node.ended().await.expect(0);
    for line in ended.stderr.lines().filter(|line| !line.starts_with("draining")) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(line["level"].is_string() && line["fields"]["message"].is_string(), "{line}");
    }
}
