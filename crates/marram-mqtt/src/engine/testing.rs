//! What tests drive the engine with: a journal in which a commit and a read are over when the test says so, numbered messages,
//! clients.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use marram_core::Failure;
use marram_core::port::mqtt::{Change, ClientId, Loaded, Message, MqttJournal, Qos, Queued};
use tokio::sync::oneshot;

use super::commit::Outcome;
use super::{Command, Link, SubscribeCommand};
use crate::outbox::{Delivery, Outbox};
use crate::wire::{Options, Retained, Version};

/// What is durable of the queues, and who waits for the disk.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) queues: BTreeMap<ClientId, BTreeMap<u64, Queued>>,
    pub(super) commits: VecDeque<(Vec<Change>, oneshot::Sender<Outcome>)>,
    pub(super) reads: VecDeque<Page>,
}

pub(super) struct Page {
    pub(super) client: ClientId,
    pub(super) after: u64,
    /// What there was when it was asked for.
    pub(super) early: Vec<Queued>,
    pub(super) answer: oneshot::Sender<Result<Vec<Queued>, Failure>>,
}

impl Disk {
    /// Small, so that there are many.
    pub(super) fn page(&self, client: &str, after: u64) -> Vec<Queued> {
        let queue = self.queues.get(client).into_iter();
        queue.flat_map(|queue| queue.range(after + 1..).take(3).map(|(_, queued)| queued.clone())).collect()
    }

    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Publish(publish) => {
                for place in publish.queues {
                    let queued = Queued {
                        seq: place.seq,
                        qos: place.qos,
                        retain: place.retain,
                        subscriptions: place.subscriptions,
                        shared: place.shared,
                        released: false,
                        message: publish.message.clone(),
                    };
                    let queue = self.queues.get_mut(&place.client).expect("a queue belongs to a session");
                    assert!(queue.insert(place.seq, queued).is_none(), "a place was given twice");
                }
            }
            Change::Session { record, fresh } => {
                let queue = self.queues.entry(record.client).or_default();
                if fresh {
                    queue.clear();
                }
            }
            Change::End(client) => drop(self.queues.remove(&client)),
            Change::Release(client, seq) => {
                let queued = self.queues.get_mut(&client).and_then(|queue| queue.get_mut(&seq));
                queued.into_iter().for_each(|queued| queued.released = true);
            }
            Change::Settle(client, seqs) => {
                let queue = self.queues.get_mut(&client).into_iter();
                queue.for_each(|queue| queue.retain(|seq, _| !seqs.contains(seq)));
            }
            _ => {}
        }
    }
}

#[derive(Clone, Default)]
pub(super) struct Journal(pub(super) Arc<Mutex<Disk>>);

impl MqttJournal for Journal {
    fn captured(&self, _: &str) -> bool {
        false
    }

    fn load(&self) -> BoxFuture<'static, Result<Loaded, Failure>> {
        async { Ok(Loaded::default()) }.boxed()
    }

    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'static, Outcome> {
        let (answer, answered) = oneshot::channel();
        self.0.lock().unwrap().commits.push_back((changes, answer));
        async move { answered.await.unwrap() }.boxed()
    }

    fn read(&self, client: &ClientId, after: u64, _: usize) -> BoxFuture<'static, Result<Vec<Queued>, Failure>> {
        let (answer, answered) = oneshot::channel();
        let mut disk = self.0.lock().unwrap();
        let early = disk.page(client, after);
        disk.reads.push_back(Page { client: client.clone(), after, early, answer });
        async move { answered.await.unwrap() }.boxed()
    }
}

/// A message whose payload is its number.
pub(super) fn message(number: u32, qos: Qos) -> Message {
    Message {
        topic: "t".into(),
        payload: Bytes::copy_from_slice(&number.to_be_bytes()),
        qos,
        retain: false,
        publisher: "".into(),
        published_unix_ns: 0,
        expires_unix_ns: None,
        properties: None,
    }
}

/// Of the message in it.
pub(super) fn number(delivery: &Delivery) -> u32 {
    u32::from_be_bytes(delivery.message.payload[..].try_into().unwrap())
}

/// The connection of a client that takes everything.
pub(super) fn link(outbox: Arc<Outbox>) -> Link {
    Link {
        connection: 0,
        outbox,
        version: Version::V5,
        receive_max: u16::MAX,
        packet_bytes_max: u32::MAX,
        keep_alive_s: 0,
        address: None,
        connected_unix_ns: 0,
        is_bridge: false,
    }
}

/// At QoS 2.
pub(super) fn subscribe(filter: &str) -> Command {
    let options =
        Options { qos: Qos::ExactlyOnce, no_local: false, retain_as_published: false, retained: Retained::Never };
    let filters = vec![(filter.into(), Ok(options))];
    Command::Subscribe(Box::new(SubscribeCommand { packet: NonZeroU16::MIN, id: 0, filters }))
}
