//! A disk that holds nothing but a node's state, and is filled up by it: what fills it can be taken away again, and then there is
//! room. The disk is a file system in memory, in a mount namespace of the node's own.

use http::Method;
use marram_testkit::{Ask, Client, eventually};

use crate::support::{Node, client, home};

/// Answers in a row that say that there is no room, until it is believed: maintenance makes some now and then.
const REFUSED_MIN: usize = 30;

/// A node whose state is on a disk of so many bytes.
async fn start(bytes: u64) -> Node {
    let home = home("").await;
    let state = home.path().canonicalize().unwrap().join("state");
    let mount = format!("mount -t tmpfs -o size={bytes},mode=0700 tmpfs '{}' && exec \"$@\"", state.display());
    // Who is not root becomes it in a namespace of users.
    let root = rustix::process::geteuid().is_root();
    let namespaces: &[&str] = if root { &["--mount"] } else { &["--user", "--map-root-user", "--mount"] };
    Node::start_under(home, "unshare", &[namespaces, &["sh", "-c", &mount, "sh"]].concat()).await
}

struct Filling<'a> {
    admin: &'a Client,
    path: fn(usize) -> String,
    method: Method,
    stored: usize,
}

impl Filling<'_> {
    /// Writes values of this size until there is no room for more of them.
    async fn fill(&mut self, bytes: usize) {
        let mut refused = 0;
        while refused < REFUSED_MIN {
            let ask = Ask::new(self.method.clone(), &(self.path)(self.stored)).body(vec![b'x'; bytes]);
            let ask = if self.method == Method::POST { as_event(ask, self.stored) } else { ask };
            let reply = self.admin.send(ask).await;
            match reply.status {
                200..300 => (self.stored, refused) = (self.stored + 1, 0),
                507 => refused += 1,
                _ => panic!("{reply:?}"),
            }
        }
    }
}

fn as_event(ask: Ask, n: usize) -> Ask {
    ask.header("ce-specversion", "1.0")
        .header("ce-id", &n.to_string())
        .header("ce-source", "/test")
        .header("ce-type", "filler")
        .header("content-type", "application/octet-stream")
}

async fn removed(admin: &Client, path: &str) {
    let reply = admin.send(Ask::new(Method::DELETE, path)).await;
    assert!((200..300).contains(&reply.status), "what takes something away has room: {reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_a_node_has_filled_up_by_itself_can_be_emptied_again() {
    let node = start(48 << 20).await;
    let admin = client(&node.admin_url);
    let mut events =
        Filling { admin: &admin, path: |_| "/v1/streams/fill/events".into(), method: Method::POST, stored: 0 };
    let mut keys =
        Filling { admin: &admin, path: |n| format!("/v1/kv/state/keys/{n}"), method: Method::PUT, stored: 0 };
    for bytes in [200_000, 20_000, 100] {
        events.fill(bytes).await;
        keys.fill(bytes.min(60_000)).await;
    }
    assert!(events.stored > 50 && keys.stored > 0, "{} events and {} keys are little", events.stored, keys.stored);
    // Reading goes on.
    assert_eq!(admin.get("/v1/streams").await.status, 200);
    assert_eq!(admin.get("/v1/kv/state/keys/0").await.status, 200);

    for n in 0..keys.stored {
        removed(&admin, &format!("/v1/kv/state/keys/{n}")).await;
    }
    removed(&admin, "/v1/streams/fill").await;
    let publish = || async {
        let ask = as_event(Ask::new(Method::POST, "/v1/streams/after/events").body(vec![b'y'; 200_000]), 0);
        (admin.send(ask).await.status == 200).then_some(())
    };
    eventually("there is room again", publish).await;
    // All that was there fits again.
    for n in 1..events.stored.min(100) {
        let ask = as_event(Ask::new(Method::POST, "/v1/streams/after/events").body(vec![b'y'; 100_000]), n);
        let _ = admin.send(ask).await.expect(200);
    }
    node.drain().await.expect(0);
}
