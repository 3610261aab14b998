//! A broker for a test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use marram_mqtt::{AccessConfig, Broker, Limits, Permissions, Transport, User, hash_password};
use tokio::net::TcpListener;

use crate::client::DEADLINE;
use crate::fixture::{Dice, Time};
use crate::journal::Memory;

pub struct Node {
    pub broker: Broker,
    pub address: SocketAddr,
    pub journal: Memory,
    pub time: Arc<Time>,
}

/// Everybody may do everything.
pub fn open() -> AccessConfig {
    AccessConfig { anonymous: Some(Permissions::all()), ..AccessConfig::default() }
}

/// Users whose password is "pw", and everybody else.
pub fn users(names: &[&str]) -> AccessConfig {
    let users = names.iter().map(|name| User {
        name: (*name).into(),
        password_hash: hash_password(b"pw", &Dice::default()).unwrap(),
        client_ids: vec![],
        permissions: Permissions::all(),
    });
    AccessConfig { users: users.collect(), ..open() }
}

impl Node {
    pub async fn new() -> Self {
        Self::with(Limits::default(), open(), Memory::default(), Duration::ZERO).await
    }

    pub async fn limited(limits: Limits) -> Self {
        Self::with(limits, open(), Memory::default(), Duration::ZERO).await
    }

    pub async fn with(limits: Limits, access: AccessConfig, journal: Memory, later: Duration) -> Self {
        let time = Arc::new(Time::later(later));
        let broker = Broker::start(limits, access, Arc::new(journal.clone()), time.clone(), Arc::new(Dice::default()))
            .await
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        broker.listen(listener, Transport::default());
        Self { broker, address, journal, time }
    }

    pub async fn listen(&self, transport: Transport) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.broker.listen(listener, transport);
        address
    }

    /// The power goes, and comes back so much later.
    pub async fn crash(&self, later: Duration) -> Self {
        let limits = Limits { session_expiry_s: u32::MAX, ..Limits::default() };
        Self::with(limits, open(), self.journal.crash(), later).await
    }

    /// Waits until the broker knows nothing of this client's connection any more.
    pub async fn gone(&self, client: &str) {
        until(&format!("{client} to be gone"), async || {
            let clients = self.broker.clients().await.unwrap();
            clients.iter().all(|state| *state.client != *client || state.connected_unix_ns.is_none())
        })
        .await;
    }
}

/// Waits for a condition.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let waited = async {
        while !condition().await {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waited).await.is_ok(), "waited in vain for {what}");
}
