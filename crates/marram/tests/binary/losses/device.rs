//! A device: an MQTT 3.1.1 client with a session that outlives its connections, as far as this test needs it. It sends again
//! what was not acknowledged, and never sends again what was (MQTT 3.1.1 §4.4), so that what the broker does is seen.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::Progress;

/// Messages on their way at a time.
const WINDOW: usize = 8;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
const PUBCOMP: u8 = 7;
const PUBREL: u8 = 0x62;

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

/// What has ended a connection.
type Gone = std::io::Error;

impl Device {
    pub fn new(name: &str, qos: u8, progress: Arc<Progress>) -> Self {
        Self { name: name.to_owned(), qos, next: 0, open: BTreeMap::new(), acknowledged: Vec::new(), progress }
    }

    pub fn topic(&self) -> String {
        format!("plant/{}", self.name)
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

    async fn connected(&mut self, address: &str) -> Result<(), Gone> {
        let (mut read, mut write) = connect(address, &self.name).await?;
        self.resume(&mut write).await?;
        loop {
            while self.open.len() < WINDOW {
                self.next += 1;
                let id = (1..).find(|id| !self.open.contains_key(id)).expect("the window is small");
                self.open.insert(id, (self.next, false));
                self.send(&mut write, id, self.next, false).await?;
            }
            let (kind, body) = packet(&mut read).await?;
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
                    write.write_all(&[PUBREL, 2, body[0], body[1]]).await?;
                }
                PUBCOMP => drop(self.open.remove(&id)),
                _ => return Err(Gone::new(ErrorKind::InvalidData, format!("a packet {kind:#x}"))),
            }
        }
    }

    fn acknowledged(&mut self, n: u64) {
        self.acknowledged.push(n);
        self.progress.went_on();
    }

    /// What the last connection has left: a release where the broker has the message, the message again where it may not.
    async fn resume(&mut self, write: &mut OwnedWriteHalf) -> Result<(), Gone> {
        // In the order in which they were sent (§4.6).
        let mut open: Vec<_> = self.open.iter().map(|(id, (n, received))| (*n, *id, *received)).collect();
        open.sort_unstable();
        for (n, id, received) in open {
            let [high, low] = id.to_be_bytes();
            match received {
                true => write.write_all(&[PUBREL, 2, high, low]).await?,
                false => self.send(write, id, n, true).await?,
            }
        }
        Ok(())
    }

    async fn send(&self, write: &mut OwnedWriteHalf, id: u16, n: u64, again: bool) -> Result<(), Gone> {
        let (topic, payload) = (self.topic(), self.payload(n));
        let length = 2 + topic.len() + 2 + payload.len();
        let mut packet = vec![PUBLISH << 4 | u8::from(again) << 3 | self.qos << 1];
        packet.push(u8::try_from(length).expect("short messages only"));
        packet.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
        packet.extend(topic.bytes());
        packet.extend(id.to_be_bytes());
        packet.extend(payload.bytes());
        write.write_all(&packet).await
    }
}

/// Whether nobody is there any more. What is not MQTT is a mistake of the broker's, or of this test.
fn is_final(gone: &Gone) -> bool {
    assert_ne!(gone.kind(), ErrorKind::InvalidData, "{gone}");
    gone.kind() == ErrorKind::ConnectionRefused
}

/// Connects with a session that stays (§3.1.2.4).
async fn connect(address: &str, name: &str) -> Result<(BufReader<OwnedReadHalf>, OwnedWriteHalf), Gone> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let length = u8::try_from(12 + name.len()).expect("a short name");
    let mut packet = vec![0x10, length, 0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 60];
    packet.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
    packet.extend(name.bytes());
    write.write_all(&packet).await?;
    let (kind, body) = self::packet(&mut read).await?;
    match (kind, body[1]) {
        (0x20, 0) => Ok((read, write)),
        // Server unavailable (§3.2.2.3).
        (0x20, 3) => Err(ErrorKind::ConnectionAborted.into()),
        other => Err(Gone::new(ErrorKind::InvalidData, format!("{name} is not let in: {other:?}"))),
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
        let (mut read, mut write) = connect(address, "listener").await.unwrap();
        write.write_all(b"\x82\x0c\x00\x01\x00\x07plant/#\x01").await.unwrap();
        assert_eq!(packet(&mut read).await.unwrap(), (0x90, vec![0, 1, 1]));
    }

    /// Listens until the broker is gone, or it has heard enough.
    pub async fn listen(&mut self, address: &str, enough: impl Fn(&Self) -> bool) {
        while let Err(gone) = self.connected(address, &enough).await {
            if is_final(&gone) {
                return;
            }
        }
    }

    async fn connected(&mut self, address: &str, enough: &impl Fn(&Self) -> bool) -> Result<(), Gone> {
        let (mut read, mut write) = connect(address, "listener").await?;
        while !enough(self) {
            let (kind, body) = packet(&mut read).await?;
            match kind >> 4 {
                PUBLISH => {
                    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                    let (id, payload) = body[2 + topic..].split_at(2);
                    self.heard.insert(String::from_utf8_lossy(payload).into_owned());
                    write.write_all(&[PUBACK << 4, 2, id[0], id[1]]).await?;
                }
                _ => return Err(Gone::new(ErrorKind::InvalidData, format!("a packet {kind:#x}"))),
            }
        }
        Ok(())
    }
}

/// The next packet: its first byte, and what follows its length. All are short.
async fn packet(read: &mut BufReader<OwnedReadHalf>) -> Result<(u8, Vec<u8>), Gone> {
    let (kind, length) = (read.read_u8().await?, read.read_u8().await?);
    assert!(length < 0x80, "short packets only");
    let mut body = vec![0; usize::from(length)];
    read.read_exact(&mut body).await?;
    Ok((kind, body))
}
