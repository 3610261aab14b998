//! What a member of a group has in memory alone, and other members with a session that lasts would get: it is in the journal, too,
//! until it is settled, as the queue of a session that has ended. A node that was killed finds it there, and hands it over as
//! what any such session leaves.
//!
//! There is none of a QoS 2 message: the member that was chosen for it gets it, or nobody (MQTT-4.8.2-5).

use std::sync::Arc;

use marram_core::port::mqtt::{Change, ClientId, Enqueue, Qos, SessionRecord};

use super::Engine;
use super::publish::Target;
use super::session::Key;
use crate::index::Group;

/// What a member has a message for.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    /// The filter of the group.
    pub(super) filter: Arc<str>,
    /// The place of its spare, which lasting members would get; 0 until it is given.
    pub(super) spare: Option<u64>,
}

/// The queue of spares.
pub(super) struct Spares {
    /// Of this start of the node, and nobody's: no client identifier has a U+0000.
    pub(super) client: ClientId,
    /// The last place that was given.
    last_seq: u64,
    /// The journal has its record.
    pub(super) is_recorded: bool,
}

impl Spares {
    /// `start` is unlike that of any other start.
    pub(super) fn new(start: u64) -> Self {
        Self { client: format!("\0spares-{start:016x}").into(), last_seq: 0, is_recorded: false }
    }
}

/// The spare of a message for this member of a group: 0, which is no place yet, if there has to be one.
pub(super) fn spare(group: &Group<Key>, target: &Target, lasts: bool) -> Option<u64> {
    (group.lasting && !lasts && target.qos == Qos::AtLeastOnce).then_some(0)
}

impl Engine {
    /// The place of a spare. Its session has a record before.
    pub(super) fn give_spare(&mut self, target: &Target, filter: &Arc<str>) -> Enqueue {
        let client = self.spares.client.clone();
        if !self.spares.is_recorded && !self.batch.has_record(&client) {
            let ended_unix_ns = Some(self.clock.unix_ns());
            let record = SessionRecord {
                client: client.clone(),
                user: None,
                expiry_s: 0,
                ended_unix_ns,
                sent_seq: 0,
                will: None,
            };
            self.batch.lazy(Change::Session { record: Box::new(record), fresh: false });
        }
        self.spares.last_seq += 1;
        Enqueue {
            client,
            seq: self.spares.last_seq,
            qos: target.qos,
            retain: target.retain,
            subscriptions: Vec::new(),
            shared: Some(filter.clone()),
        }
    }

    /// A spare is not needed any more.
    pub(super) fn settle_spare(&mut self, spare: Option<u64>) {
        self.settled.extend(spare.map(|seq| (Key::SPARES, seq)));
    }
}
