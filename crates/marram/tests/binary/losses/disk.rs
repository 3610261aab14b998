//! A disk that fails under a whole node, and works again: whoever was told that something is durable has it, everybody else was
//! told that it failed, nothing is stored twice, and the node goes on by itself.
//!
//! `strace` makes the calls fail for real.

use http::Method;
use marram_testkit::{Ask, Client, Reply, eventually, get};

use super::{Doors, LISTENERS, Site, deploy, start, start_under};
use crate::support::{Node, client, guest_app, home};

/// Acknowledged events after the last failure that show that the node is itself again.
const AFTERWARDS: usize = 100;

pub fn need_strace() {
    let there = std::process::Command::new("strace").arg("-V").output().is_ok();
    assert!(there, "strace is missing, without which nothing is shown: run scripts/setup.sh, which installs it");
}

/// Puts everybody to work on a node whose calls fail as `inject` says, until each has gone on past its failures; then kills it
/// and looks at what is there.
async fn check(inject: &str, statuses: &[u16]) {
    need_strace();
    let mut site = Site::new();
    let home = home(LISTENERS).await;
    let (node, doors) = start_under(home, "strace", &["-D", "-f", "-qq", "-o", "/dev/null", "-e", inject]).await;
    deploy(&node).await;
    site.listener.lock().await.subscribe(&doors.mqtt).await;
    let mut tasks = site.work(&node, &doors);
    let failed = site.fail_and_go_on(AFTERWARDS).await;
    assert!(failed.iter().all(|status| statuses.contains(status)), "{failed:?}");
    // Reading goes on in any case.
    assert_eq!(client(&node.admin_url).get("/v1/streams").await.status, 200);
    let Node { running, home, .. } = node;
    running.kill().await;
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    let (node, doors) = start(home).await;
    site.balance(&node, &doors).await;
    for device in &site.devices {
        assert!(device.lock().await.acknowledged.len() > AFTERWARDS / 4, "this has shown nothing");
    }
    node.drain().await.expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_and_recovers() {
    check("inject=pwrite64:error=ENOSPC:when=4000..6000", &[507, 503]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_fail_are_refused_and_do_not_come_back() {
    check("inject=pwrite64:error=EIO:when=4000..4400", &[500, 503, 507]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn syncs_that_fail_are_refused_and_do_not_come_back() {
    check("inject=fsync,fdatasync:error=EIO:when=300..340", &[500, 503]).await;
}

/// What starts with an event, besides a web request.
const TAKES: &str =
    "[[function]]\nname = \"take\"\ncomponent = \"main.wasm\"\non = [{ stream = \"readings\" }]\n[stream.plain]";

/// Neither database has room for anything when the node starts, as after a crash that a full disk brought about: the first
/// writes of each thread fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_on_a_full_disk_serves_what_it_has_and_writes_once_there_is_room() {
    need_strace();
    let node = Node::start_in(home("").await).await;
    let app = guest_app("full", "hello-p2", TAKES);
    node.deploy(app.path()).await;
    let put = |value: &str| Ask::new(Method::PUT, "/v1/kv/state/keys/k").body(value.to_owned());
    let _ = client(&node.admin_url).send(put("before")).await.expect(200);
    let Node { running, home, .. } = node;
    running.kill().await;

    let state = home.path().canonicalize().unwrap().join("state");
    // Nothing is held for what takes something away, either.
    let _ = std::fs::remove_file(state.join("node.reserve"));
    let full = ["node.db", "node.db-wal", "node.reserve", "telemetry.db", "telemetry.db-wal"];
    let full = full.map(|file| state.join(file).to_str().unwrap().to_owned());
    let inject = "inject=pwrite64,fallocate:error=ENOSPC:when=1..20";
    let mut arguments = vec!["-D", "-f", "-qq", "-o", "/dev/null", "-e", inject];
    arguments.extend(full.iter().flat_map(|path| ["-P", path]));
    let mut node = Node::start_under(home, "strace", &arguments).await;
    let admin = client(&node.admin_url);
    assert_eq!(admin.get("/v1/kv/state/keys/k").await.expect(200).text(), "before");
    let _ = node.get("full", "/").await.expect(200);
    let refused = admin.send(put("refused")).await.expect(507).json();
    assert_eq!(refused["type"], "urn:marram:problem:storage-full", "{refused}");
    node.running.says("telemetry could not keep everything").await;

    let taken = || async { (admin.send(put("after")).await.status == 200).then_some(()) };
    eventually("there is room, and the node writes", taken).await;
    // What was deployed before takes its events.
    let publish = || async {
        let event = Ask::new(Method::POST, "/v1/streams/readings/events").header("ce-specversion", "1.0");
        let event = event.header("ce-id", "1").header("ce-source", "/test").header("ce-type", "reading");
        (admin.send(event).await.status == 200).then_some(())
    };
    eventually("an event is stored", publish).await;
    let acked = || async {
        let streams = admin.get("/v1/streams").await.expect(200).json();
        let readings = streams["streams"].as_array()?.iter().find(|stream| stream["name"] == "readings")?.clone();
        (readings["consumers"][0]["acked"] == 1).then_some(())
    };
    eventually("the function has taken it", acked).await;
    let Node { running, home, .. } = node;
    running.kill().await;
    let node = Node::start_in(home).await;
    assert_eq!(client(&node.admin_url).get("/v1/kv/state/keys/k").await.expect(200).text(), "after");
    let _ = node.get("full", "/").await.expect(200);
    node.drain().await.expect(0);
}

/// Both ways in for contents.
struct Ways {
    admin: Client,
    s3: Client,
    doors: Doors,
}

impl Ways {
    async fn by_s3(&self, ask: Ask) -> Reply {
        self.s3.send(self.doors.key.sign(ask, self.doors.s3)).await
    }

    /// Puts three contents: under a name in each way, and as a part.
    async fn put(&self, name: &str, part: &str, seed: u64) -> [Reply; 3] {
        let put = |path: &str, n: u64| Ask::new(Method::PUT, path).body(bytes(seed + n));
        [
            self.admin.send(put(&format!("/v1/objects/uploads/{name}-admin"), 0)).await,
            self.by_s3(put(&format!("/uploads/{name}-s3"), 1)).await,
            self.by_s3(put(part, 2)).await,
        ]
    }

    async fn names(&self) -> Vec<String> {
        let list = self.admin.get("/v1/objects/uploads").await.expect(200).json();
        list["objects"].as_array().unwrap().iter().map(|object| object["name"].as_str().unwrap().to_owned()).collect()
    }

    async fn has(&self, name: &str, seed: u64) {
        let there = self.by_s3(get(&format!("/uploads/{name}"))).await.expect(200);
        assert!(there.body == bytes(seed), "{name} has another content");
    }
}

/// A content that no other upload has: more than is written at once.
fn bytes(seed: u64) -> Vec<u8> {
    seed.to_le_bytes().repeat(40_000)
}

/// The text of an XML element.
fn element(reply: &Reply, name: &str) -> String {
    let text = reply.text();
    let inner = text.split(&format!("<{name}>")).nth(1).and_then(|rest| rest.split('<').next());
    inner.unwrap_or_else(|| panic!("{name} is not in {text}")).to_owned()
}

/// Contents are files, and their uploads are numbered: the three after the first three have no room, and the three after those.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_for_which_there_is_no_room_are_refused_until_there_is() {
    need_strace();
    let home = home(LISTENERS).await;
    let uploads = home.path().canonicalize().unwrap().join("state/blobs/uploads");
    let full: Vec<_> = (3..9).map(|n| uploads.join(n.to_string()).to_str().unwrap().to_owned()).collect();
    let mut arguments = vec!["-D", "-f", "-qq", "-o", "/dev/null", "-e", "inject=write:error=ENOSPC"];
    arguments.extend(full.iter().flat_map(|path| ["-P", path]));
    let (node, doors) = start_under(home, "strace", &arguments).await;
    let ways = Ways { admin: client(&node.admin_url), s3: Client::new(doors.s3), doors };
    let _ = ways.admin.send(Ask::new(Method::PUT, "/v1/objects/uploads")).await.expect(201);
    let begun = ways.by_s3(Ask::new(Method::POST, "/uploads/parts?uploads")).await.expect(200);
    let upload = format!("/uploads/parts?uploadId={}", element(&begun, "UploadId"));
    let part = format!("{upload}&partNumber=1");
    for reply in ways.put("before", &part, 0).await {
        let _ = reply.expect(200);
    }

    // New names, and what was there: that stays.
    for name in ["after", "before"] {
        let [by_admin, by_s3, of_part] = ways.put(name, &part, 10).await;
        let by_admin = by_admin.expect(507).json();
        assert_eq!(by_admin["type"], "urn:marram:problem:storage-full", "{by_admin}");
        for reply in [by_s3, of_part] {
            assert_eq!(element(&reply.expect(507), "Code"), "InsufficientStorage");
        }
        assert_eq!(ways.names().await, ["before-admin", "before-s3"]);
        ways.has("before-admin", 0).await;
        ways.has("before-s3", 1).await;
        let none = || async { (std::fs::read_dir(&uploads).unwrap().count() == 0).then_some(()) };
        eventually("nothing half-stored is left", none).await;
    }

    // There is room again, and the node is still the one that it was.
    let [by_admin, by_s3, of_part] = ways.put("after", &part, 10).await.map(|reply| reply.expect(200));
    assert!(by_admin.json()["size"] == 320_000 && by_s3.header("etag").is_some(), "{by_admin:?} {by_s3:?}");
    let part = format!("<Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part>", of_part.header("etag").unwrap());
    let complete = format!("<CompleteMultipartUpload>{part}</CompleteMultipartUpload>");
    let _ = ways.by_s3(Ask::new(Method::POST, &upload).body(complete)).await.expect(200);
    for (name, seed) in [("before-admin", 0), ("before-s3", 1), ("after-admin", 10), ("after-s3", 11), ("parts", 12)] {
        ways.has(name, seed).await;
    }
    assert_eq!(ways.names().await, ["after-admin", "after-s3", "before-admin", "before-s3", "parts"]);
    node.drain().await.expect(0);
}
