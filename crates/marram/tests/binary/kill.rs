//! `kill -9` at any moment, in the middle of deployments and requests: what was acknowledged is there afterwards and
//! answers, nothing is half there, and until that moment nobody who asked for what was acknowledged got a `5xx`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use marram_core::Digest;
use marram_testkit::{Ask, Client, eventually, guest};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{Node, ask, client, home, start_node};

/// Differs in each round and is the same in each run.
const SEED: u64 = 0x6d61_7272_616d;

/// How often the node is killed.
fn rounds() -> u64 {
    std::env::var("MARRAM_KILLS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(24)
}

/// An app of which each version answers with its number.
struct App {
    name: &'static str,
    /// Versions that the node has acknowledged, and that it was asked for: the last ones, and 0 for none.
    acknowledged: AtomicU64,
    asked: AtomicU64,
}

impl App {
    const fn new(name: &'static str) -> Self {
        Self { name, acknowledged: AtomicU64::new(0), asked: AtomicU64::new(0) }
    }

    /// Its manifest, and what its function is: a script of its own; the same component with another configuration; a
    /// component of its own, which is compiled.
    fn version(&self, n: u64) -> (String, Vec<u8>) {
        let component = if self.name == "script" { "app.py" } else { "main.wasm" };
        let manifest = format!(
            "# version {n}\nmanifest_version = 1\n[app]\nname = \"{name}\"\n[[function]]\nname = \"main\"\n\
             component = \"{component}\"\non = [{{ http = \"{name}.example/...\" }}]\nconfig = {{ version = \"{n}\" }}\n",
            name = self.name
        );
        let mut component = std::fs::read(guest("config-rc")).unwrap();
        match self.name {
            "script" => component = format!("def on_fetch(request):\n    return \"{n}\"\n").into_bytes(),
            // A custom section at the end, of 9 bytes: its name, of none, and a number.
            "compiled" => component.extend([&[0, 9, 0], &n.to_le_bytes()[..]].concat()),
            _ => {}
        }
        (manifest, component)
    }

    /// Deploys version after version until nobody answers any more.
    async fn deploy(&self, admin: &Client) {
        loop {
            let n = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            let (manifest, component) = self.version(n);
            let digest = Digest::of(&component).to_string();
            let upload = Ask::new(Method::PUT, &format!("/v1/blobs/{digest}")).body(component);
            let Ok(reply) = admin.try_send(upload).await else { return };
            assert!(matches!(reply.status, 200 | 201), "{reply:?}");
            let request = json!({ "manifest": manifest, "components": { "main": digest } });
            let deploy = Ask::new(Method::PUT, &format!("/v1/apps/{}", self.name)).json(&request);
            let Ok(reply) = admin.try_send(deploy).await else { return };
            let _ = reply.expect(200);
            self.acknowledged.store(n, Ordering::SeqCst);
        }
    }

    /// Asks for it all the time, from when it was acknowledged until the node is killed.
    async fn request(&self, http: &Client, killed: &AtomicBool) -> u64 {
        let mut answered = 0;
        while !killed.load(Ordering::SeqCst) {
            let before = self.acknowledged.load(Ordering::SeqCst);
            let request = crate::support::at(self.name, "/config/version");
            match http.try_send(request).await {
                Ok(reply) if before > 0 => {
                    let n: u64 = reply.expect(200).text().trim().parse().unwrap();
                    assert!(n >= before, "{}: {before} was acknowledged, and {n} answers", self.name);
                    answered += 1;
                }
                Ok(_) => {}
                Err(error) => assert!(killed.load(Ordering::SeqCst), "{} is not answered: {error:#}", self.name),
            }
        }
        answered
    }

    /// What was acknowledged is there, or what was asked for after it; and all of it.
    async fn check(&self, node: &Node, round: u64) {
        let (last, asked) = (self.acknowledged.load(Ordering::SeqCst), self.asked.load(Ordering::SeqCst));
        let admin = client(&node.admin_url);
        let reply = admin.get(&format!("/v1/apps/{}", self.name)).await;
        if reply.status == 404 && last == 0 {
            return;
        }
        let app = reply.expect(200).json();
        assert_eq!(app["state"], "ready", "round {round}: {app}");
        let answer = ask(&node.http, self.name, "/config/version").await.expect(200).text();
        let n: u64 = answer.trim().parse().unwrap();
        assert!((last..=asked).contains(&n), "round {round}: {} has {n}, not {last} to {asked}", self.name);
        let (manifest, component) = self.version(n);
        assert_eq!(app["manifest"], manifest, "round {round}");
        assert_eq!(app["functions"][0]["digest"], Digest::of(&component).to_string(), "round {round}");
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
pub fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One life of a node: looked at, put to work, and killed after `moment`. In three lives of four that is counted from when
/// an app got a new version, on a machine of whatever speed. Gives the answers that requests got.
async fn live(home: TempDir, apps: &Arc<[App; 3]>, round: u64, moment: Duration) -> (TempDir, u64) {
    let node = Node::start_in(home).await;
    for app in apps.iter() {
        app.check(&node, round).await;
    }
    let killed = Arc::new(AtomicBool::new(false));
    let (mut deploying, mut requesting) = (Vec::new(), Vec::new());
    for n in 0..apps.len() {
        let (app, admin, http) = (Arc::clone(apps), client(&node.admin_url), node.http.clone());
        deploying.push(tokio::spawn(async move { app[n].deploy(&admin).await }));
        let (app, killed) = (Arc::clone(apps), Arc::clone(&killed));
        requesting.push(tokio::spawn(async move { app[n].request(&http, &killed).await }));
    }
    if let Some(app) = apps.get(round as usize % 4) {
        let before = app.acknowledged.load(Ordering::SeqCst);
        eventually(app.name, || async { (app.acknowledged.load(Ordering::SeqCst) > before).then_some(()) }).await;
    }
    // Not a wait for something, but the moment at which the power fails.
    tokio::time::sleep(moment).await;
    killed.store(true, Ordering::SeqCst);
    let Node { running, home, .. } = node;
    running.kill().await;
    for task in deploying {
        task.await.unwrap();
    }
    let mut answered = 0;
    for task in requesting {
        answered += task.await.unwrap();
    }
    (home, answered)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9_in_the_middle_of_deployments() {
    let apps = Arc::new([App::new("script"), App::new("configured"), App::new("compiled")]);
    let mut seed = SEED;
    let (mut home, mut answered) = (home("").await, 0);
    for round in 0..rounds() {
        if round % 6 == 5 {
            // While it starts.
            let starting = start_node(&home).await;
            tokio::time::sleep(Duration::from_micros(random(&mut seed) % 80_000)).await;
            starting.kill().await;
        }
        let moment = Duration::from_micros(random(&mut seed) % 300_000);
        let lived = live(home, &apps, round, moment).await;
        (home, answered) = (lived.0, answered + lived.1);
    }
    let node = Node::start_in(home).await;
    for app in apps.iter() {
        app.check(&node, rounds()).await;
    }
    let state = node.home.path().join("state");
    node.marram(&["doctor", "--state", state.to_str().unwrap()]).at(node.home.path()).done().await;
    let acknowledged: BTreeMap<_, _> =
        apps.iter().map(|app| (app.name, app.acknowledged.load(Ordering::SeqCst))).collect();
    assert!(acknowledged.values().all(|n| *n >= rounds() / 4), "this has shown nothing: {acknowledged:?}");
    assert!(answered > 10 * rounds(), "this has shown nothing: {answered} answers");
    node.drain().await.expect(0);
}
