//! A device with a session that outlives its connections. It sends again what was not acknowledged, and never sends again
//! what was (MQTT 3.1.1 §4.4), so that what the broker does is seen.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;

use super::Progress;
use crate::mqtt::{self, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, Writer};

/// Messages on their way at a time.
const WINDOW: usize = 8;

/// What a device remembers, whatever happens to its connections.
pub struct Device {
    name: String,
    qos: u8,
    next: u64,
    /// By packet identifier: what was sent, and whether the broker has said that it has it (QoS 2 only).
    open: BTreeMap<u16, (u64, bool)>,
    /// What the broker has acknowledged: from PUBACK or PUBREC on, it may never be lost.
    pub acknowledged: Vec<u64>,
    progress: Arc<Progress>,
}

impl Device {
    pub fn new(name: &str, qos: u8, progress: Arc<Progress>) -> Self {
        Self { name: name.to_owned(), qos, next: 0, open: BTreeMap::new(), acknowledged: Vec::new(), progress }
    }

    /// What the message of this number says.
    pub fn payload(&self, n: u64) -> String {
        format!("{}-{n}", self.name)
    }

    /// Publishes until the broker is gone; connects again when it was only cut off.
    pub async fn publish(&mut self, address: &str) {
        loop {
            let Err(gone) = self.connected(address).await else { unreachable!("it publishes without an end") };
            if is_final(&gone) {
                return;
            }
            self.progress.cut();
        }
    }

    async fn connected(&mut self, address: &str) -> Result<()> {
        let (mut read, mut write) = mqtt::connect(address, &self.name).await?;
        self.resume(&mut write).await?;
        loop {
            while self.open.len() < WINDOW {
                self.next += 1;
                let id = (1..).find(|id| !self.open.contains_key(id)).expect("the window is small");
                self.open.insert(id, (self.next, false));
                write.write_all(&self.packet(id, self.next, false)).await?;
            }
            let (kind, body) = mqtt::next(&mut read).await?;
            let id = u16::from_be_bytes([body[0], body[1]]);
            match kind >> 4 {
                PUBACK => {
                    let (n, _) = self.open.remove(&id).expect("it was sent");
                    self.acknowledged(n);
                }
                PUBREC => {
                    let open = self.open.get_mut(&id).expect("it was sent");
                    let (n, again) = (open.0, std::mem::replace(&mut open.1, true));
                    if !again {
                        self.acknowledged(n);
                    }
                    write.write_all(&mqtt::about(PUBREL, id)).await?;
                }
                PUBCOMP => drop(self.open.remove(&id)),
                _ => return Err(unexpected(kind)),
            }
        }
    }

    fn acknowledged(&mut self, n: u64) {
        self.acknowledged.push(n);
        self.progress.went_on();
    }

    /// What the last connection has left: a release where the broker has the message, the message again where it may not.
    async fn resume(&mut self, write: &mut Writer) -> Result<()> {
        // In the order in which they were sent (§4.6).
        let mut open: Vec<_> = self.open.iter().map(|(id, (n, received))| (*n, *id, *received)).collect();
        open.sort_unstable();
        for (n, id, received) in open {
            match received {
                true => write.write_all(&mqtt::about(PUBREL, id)).await?,
                false => write.write_all(&self.packet(id, n, true)).await?,
            }
        }
        Ok(())
    }

    fn packet(&self, id: u16, n: u64, again: bool) -> Vec<u8> {
        mqtt::publish(&format!("plant/{}", self.name), self.payload(n).as_bytes(), self.qos, id, again)
    }
}

/// A subscriber with a session that stays: everything that was published while it was away comes when it is back.
pub struct Listener {
    pub heard: BTreeSet<String>,
}

impl Listener {
    pub const fn new() -> Self {
        Self { heard: BTreeSet::new() }
    }

    /// Subscribes; what is published from then on is owed.
    pub async fn subscribe(&self, address: &str) {
        let (mut read, mut write) = mqtt::connect(address, "listener").await.unwrap();
        mqtt::subscribe(&mut read, &mut write, "plant/#").await.unwrap();
    }

    /// Listens until the broker is gone, or it has heard enough.
    pub async fn listen(&mut self, address: &str, enough: impl Fn(&Self) -> bool) {
        while let Err(gone) = self.connected(address, &enough).await {
            if is_final(&gone) {
                return;
            }
        }
    }

    async fn connected(&mut self, address: &str, enough: &impl Fn(&Self) -> bool) -> Result<()> {
        let (mut read, mut write) = mqtt::connect(address, "listener").await?;
        while !enough(self) {
            let (kind, body) = mqtt::next(&mut read).await?;
            if kind >> 4 != PUBLISH {
                return Err(unexpected(kind));
            }
            let (_, id, payload) = mqtt::message(&body);
            self.heard.insert(String::from_utf8_lossy(payload).into_owned());
            write.write_all(&mqtt::about(PUBACK, id)).await?;
        }
        Ok(())
    }
}

fn unexpected(kind: u8) -> Error {
    Error::new(ErrorKind::InvalidData, format!("a packet {kind:#x}"))
}

/// Whether nobody is there any more. What is not MQTT is a mistake of the broker's, or of this test.
fn is_final(gone: &Error) -> bool {
    assert_ne!(gone.kind(), ErrorKind::InvalidData, "{gone}");
    gone.kind() == ErrorKind::ConnectionRefused
}
