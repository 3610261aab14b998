//! Every limit of the broker, with its reason. What an operator may change is in [`crate::Limits`].

use std::time::Duration;

/// Limits on clients that an operator may set.
///
/// Of connections, sessions, subscriptions and retained messages nobody has more than there is left for others: so one
/// alone has at most half of them, and cannot lock the others out. Who that is, a user's name says, or the address
/// without one.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at the same time, of all listeners.
    pub connections: usize,
    /// Bytes of a packet, its fixed header included. An event's data has at most 1 MiB, and so has the whole packet.
    pub packet_bytes: u32,
    /// QoS 1 and 2 messages of a client that are not acknowledged yet (the Receive Maximum of a CONNACK). Past it a 5.0
    /// client is disconnected, and a 3.1.1 client is not read from.
    pub receive_max: u16,
    /// QoS 1 and 2 messages on their way to a client; less if the client says so.
    pub send_max: u16,
    /// Topic aliases that a client may define: each holds a topic.
    pub topic_aliases: u16,
    /// Subscriptions of a session.
    pub filters_per_client: usize,
    /// Subscriptions of all sessions: matching is fast only while the index is in the processor's cache.
    pub filters: usize,
    /// Sessions, connected or not, and ended ones whose queue is not handed over yet: each has a record in memory.
    pub sessions: usize,
    /// Messages in the queue of a session. Past it new messages for that session are dropped and counted: what it has is
    /// older and was promised first, and one dead subscriber does not stop a publisher.
    pub queue_messages: u64,
    /// Bytes of the queue of a session; past it as for the messages.
    pub queue_bytes: u64,
    /// Retained messages: all of them are in memory.
    pub retained: usize,
    /// Bytes of all retained messages.
    pub retained_bytes: usize,
    /// Bytes of packets that are on their way to one client's socket; past it QoS 0 messages for it are dropped and counted.
    pub outbound_bytes: usize,
    /// Bytes of messages that are in memory for all sessions together. Each session may have a part of what is left of
    /// it, so that who has the most is the first that gets no more: its queue stays on the disk, or loses what is new
    /// if it is in memory alone. What the latter have for a group and have not acknowledged counts: another member
    /// would get it. A message that many have counts once for all, and for each in its part.
    pub memory_bytes: usize,
    /// The longest session expiry that is granted, in seconds; `u32::MAX` is for ever.
    pub session_expiry_s: u32,
    /// The longest keep-alive that is granted, in seconds; 0 is none. It is told to 5.0 clients (Server Keep Alive), and
    /// 3.1.1 clients that ask for more or none keep what they asked for.
    pub keep_alive_s: u16,
    /// From the connection to its CONNECT, a TLS handshake included.
    pub connect_time: Duration,
    /// From the first byte of a packet to its last.
    pub packet_time: Duration,
    /// A connection that takes nothing of what is sent to it for this long is cut.
    pub write_time: Duration,
    /// What a drain may take.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            packet_bytes: 1 << 20,
            receive_max: 256,
            send_max: 128,
            topic_aliases: 16,
            filters_per_client: 256,
            filters: 100_000,
            sessions: 20_000,
            queue_messages: 10_000,
            queue_bytes: 64 << 20,
            retained: 20_000,
            retained_bytes: 32 << 20,
            outbound_bytes: 1 << 20,
            memory_bytes: 64 << 20,
            session_expiry_s: 30 * 86_400,
            keep_alive_s: 3_600,
            connect_time: Duration::from_secs(10),
            packet_time: Duration::from_secs(30),
            write_time: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// Bytes of messages that may wait in memory for one client while all together use so many: a part of what is left,
    /// as in the buffers of switches (Choudhury and Hahne, "Dynamic queue length thresholds", 1998), and what everybody
    /// has.
    pub(crate) fn share_bytes(&self, used: u64) -> usize {
        let left = self.memory_bytes.saturating_sub(usize::try_from(used).unwrap_or(usize::MAX));
        (left / SHARES).max(self.memory_bytes / self.connections.max(1))
    }

    /// Whether one more message that is larger than the part of its client may be in memory, besides so many bytes of such ones:
    /// whatever others have, a queue on the disk and retained messages go on, one message at a time.
    pub(crate) fn has_reserve(&self, used: u64, bytes: usize) -> bool {
        used == 0 || used + bytes as u64 <= (self.memory_bytes / RESERVE_PART) as u64
    }
}

/// One client alone has one part in so many of the memory for messages, and one more: almost 4 MiB.
const SHARES: usize = 16;
/// What is kept back of the memory for messages besides it: one part in so many.
const RESERVE_PART: usize = 8;
/// Bytes of a topic name or filter; longer ones are nobody's.
pub(crate) const TOPIC_BYTES_MAX: usize = marram_core::event::FILTER_BYTES_MAX;
/// Levels of a topic name or filter: matching takes a step for each.
pub(crate) const TOPIC_LEVELS_MAX: usize = marram_core::event::FILTER_LEVELS_MAX;
/// Bytes of a client identifier: it is in the source of events and in every record.
pub(crate) const CLIENT_ID_BYTES_MAX: usize = 256;
/// User properties of a packet.
pub(crate) const USER_PROPERTIES_MAX: usize = 64;
/// Bytes of all properties of a message: an event has room for no more.
pub(crate) const PROPERTY_BYTES_MAX: usize = 32 << 10;
/// Bytes that are read from a socket at once, into a buffer that all connections of a thread share.
pub(crate) const READ_BYTES: usize = 64 << 10;
/// Bytes that are encoded before they are written.
pub(crate) const WRITE_BYTES: usize = 64 << 10;
/// A partial packet of more than this takes its bytes from [`PARTIAL_BYTES_MAX`].
pub(crate) const PARTIAL_FREE_BYTES: usize = 16 << 10;
/// Bytes of all partial packets past that: a thousand clients that each begin a packet of 1 MiB wait for each other.
pub(crate) const PARTIAL_BYTES_MAX: usize = 64 << 20;
/// Bytes of commands of one connection that the engine has not finished; it is not read from until they are fewer.
pub(crate) const INBOUND_BYTES_MAX: usize = 1 << 20;
/// Batches of commands that wait for the engine. One connection has at most one or two in it.
pub(crate) const ENGINE_QUEUE_MAX: usize = 1_024;
/// Commands that the engine takes into one commit.
pub(crate) const BATCH_COMMANDS_MAX: usize = 512;
/// Commits under way at once: enough for the store's writer to find something whenever it is done.
pub(crate) const COMMITS_MAX: usize = 16;
/// Messages of a session's queue that are in memory and not sent; more are read when these are gone.
pub(crate) const WAITING_MAX: usize = 256;
/// Queues of sessions that have ended, and that go to other members of their groups, at the same time: each has a part in memory.
pub(crate) const HANDOVERS_MAX: usize = 2;
/// How often such a queue may be unreadable in a row before it is given up for a client that waits for its name.
pub(crate) const HANDOVER_READS_MAX: u32 = 3;
/// Messages of such sessions that were in memory alone and for which nobody has room; they are tried again together.
pub(crate) const STRAYS_MAX: usize = 1_024;
/// Queues that are read at the same time: each part has up to 2 MiB in memory until it is known what of it has room.
pub(crate) const READS_MAX: usize = 8;
/// Messages that are read from a queue at once.
pub(crate) const PAGE_MESSAGES: usize = 128;
/// Retained messages that are looked at before others have their turn.
pub(crate) const REPLAY_STEP: usize = 256;
/// Settled places are written with the next commit, or after this long: losing them costs a redelivery.
pub(crate) const LAZY_TIME: Duration = Duration::from_millis(200);
/// As many of them are written at once.
pub(crate) const LAZY_MAX: usize = 1_024;
/// The greatest distance between the oldest and the newest place in a queue: packet identifiers are places modulo 65,535.
pub(crate) const SEQ_SPAN_MAX: u64 = 65_000;
/// Passwords that are checked at the same time: each takes about 20 MiB and 20 ms of a processor.
pub(crate) const PASSWORD_CHECKS_MAX: usize = 1;
/// Checked passwords that are remembered, as keyed hashes: a thousand devices that reconnect are not a thousand checks.
pub(crate) const PASSWORD_CACHE_MAX: usize = 10_000;
/// QoS 1 messages on their way over a bridge, in each direction.
pub(crate) const BRIDGE_RECEIVE_MAX: u16 = 64;
/// Messages between the two ends of a bridge, besides those that are open: then the reader waits, and with it its broker.
pub(crate) const BRIDGE_QUEUE_MAX: usize = BRIDGE_RECEIVE_MAX as usize;
/// Bytes of a packet of the other broker; larger ones would not fit here.
pub(crate) const BRIDGE_PACKET_BYTES_MAX: u32 = 1 << 20;
/// Bytes between a bridge and its own broker.
pub(crate) const BRIDGE_PIPE_BYTES: usize = 64 << 10;
/// The first wait before a bridge connects again, or publishes again what was refused; it doubles.
pub(crate) const BRIDGE_BACK_OFF: Duration = Duration::from_millis(500);
/// The longest.
pub(crate) const BRIDGE_BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// How often the other broker may refuse a message for a reason that may be of the moment before the message is left out:
/// about two minutes.
pub(crate) const BRIDGE_TRIES_MAX: u32 = 8;
/// From the connection to the other broker to its CONNACK.
pub(crate) const BRIDGE_CONNECT_TIME: Duration = Duration::from_secs(15);
/// A broker that takes nothing for this long is given up.
pub(crate) const BRIDGE_WRITE_TIME: Duration = Duration::from_secs(30);
