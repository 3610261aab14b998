//! From the first byte to the CONNACK, and to the end of the connection.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::oneshot;
use tokio_util::sync::PollSender;

use super::inbound::poll_append;
use super::{Connection, Io, linger};
use crate::access::{CertificateNames, Credentials, Denied, Identity, Permissions};
use crate::engine::{Accepted, From, Hello, Input, Link};
use crate::limits::READ_BYTES;
use crate::outbox::Outbox;
use crate::shared::Shared;
use crate::stats;
use crate::wire::{self, Connect, Fault, Granted, Packet, Reason, Room, Version};

/// Who is at the other end, as far as the transport knows.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Its address.
    pub address: Option<SocketAddr>,
    /// The names in its certificate, if TLS has verified one.
    pub certificate: Option<CertificateNames>,
    /// It is a part of this node, which knows who it is and what it may do.
    inner: Option<Identity>,
}

impl Peer {
    /// A part of this node. Its session is `user`'s, and nobody else can be that.
    pub(crate) fn inner(user: Arc<str>, permissions: Permissions) -> Self {
        let inner = Some(Identity { user: Some(user), grants: Arc::new(permissions) });
        Self { inner, ..Self::default() }
    }
}

/// Tells the engine that a connection is gone, whatever happens to its task.
struct Goodbye(Option<(Arc<Shared>, From)>);

impl Goodbye {
    /// Waits for a place in the engine's queue.
    async fn say(mut self) {
        if let Some((shared, from)) = self.0.take() {
            // A broker that is gone needs no telling.
            let _ = shared.engine.send(Input::Ended(from)).await;
        }
    }
}

impl Drop for Goodbye {
    fn drop(&mut self) {
        if let Some((shared, from)) = self.0.take() {
            // The task was dropped: this is the best that can be done. The client's next connection takes over.
            let _ = shared.engine.try_send(Input::Ended(from));
        }
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve(shared: Arc<Shared>, io: Box<dyn Io>, peer: Peer) {
    stats::add(&shared.stats.accepted, 1);
    stats::add(&shared.stats.connections, 1);
    let _open = Open(shared.clone());
    let deadline = shared.limits.connect_time;
    // Boxed: it needs more room than the connection does afterwards.
    let shaking = Box::pin(handshake(&shared, io, peer));
    let connected = tokio::time::timeout(deadline, shaking).await;
    let Ok(Some((mut connection, goodbye))) = connected else {
        return stats::add(&shared.stats.refused, 1);
    };
    connection.run().await;
    goodbye.say().await;
    connection.linger().await;
}

struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        stats::sub(&self.0.stats.connections, 1);
    }
}

async fn handshake(shared: &Arc<Shared>, mut io: Box<dyn Io>, peer: Peer) -> Option<(Connection, Goodbye)> {
    let mut partial = BytesMut::new();
    let connect = match read_connect(shared, &mut io, &mut partial).await {
        Some(Ok(connect)) => connect,
        None => {
            linger(&mut io).await;
            return None;
        }
        Some(Err((version, fault))) => {
            stats::add(&shared.stats.faults, 1);
            tracing::debug!(reason = fault.reason.0, why = fault.why, "an MQTT client breaks the protocol");
            // Who does not speak MQTT is told nothing; nor is a 3.1.1 client what its version has no word for.
            let told = version
                .is_some_and(|version| version.is_5() || [Reason::VERSION, Reason::CLIENT_ID].contains(&fault.reason));
            match version.filter(|_| told) {
                Some(version) => refuse(&mut io, version, None, fault.reason, fault.why).await,
                None => linger(&mut io).await,
            }
            return None;
        }
    };
    let version = connect.version;
    let room = Room { packet_bytes_max: connect.packet_bytes_max, words: true };
    let identity = match admit(shared, &connect, &peer).await {
        Ok(identity) => identity,
        Err((reason, words)) => {
            refuse(&mut io, version, Some(room), reason, words).await;
            return None;
        }
    };
    let keep_alive_s = granted_keep_alive(version, connect.keep_alive_s, shared.limits.keep_alive_s);
    let told_keep_alive = (version.is_5() && keep_alive_s != connect.keep_alive_s).then_some(keep_alive_s);
    let outbox = Arc::new(Outbox::new());
    let link = Link {
        connection: 0,
        outbox: outbox.clone(),
        version,
        receive_max: connect.receive_max,
        packet_bytes_max: connect.packet_bytes_max,
        keep_alive_s,
        address: peer.address,
        connected_unix_ns: shared.clock.unix_ns(),
        is_bridge: peer.inner.is_some(),
    };
    let asked_expiry_s = connect.expiry_s;
    let words = connect.problem_information;
    let hello = Hello {
        client: connect.client,
        clean: connect.clean,
        expiry_s: connect.expiry_s,
        will: connect.will,
        identity: identity.clone(),
        link,
    };
    let accepted = match ask(shared, hello).await? {
        Ok(accepted) => accepted,
        Err((reason, words)) => {
            refuse(&mut io, version, Some(room), reason, words).await;
            return None;
        }
    };
    let goodbye = Goodbye(Some((shared.clone(), accepted.from)));
    let mut write = BytesMut::new();
    let granted = Granted {
        session_present: accepted.session_present,
        assigned: accepted.assigned.as_deref(),
        expiry_s: (accepted.expiry_s != asked_expiry_s).then_some(accepted.expiry_s),
        keep_alive_s: told_keep_alive,
        receive_max: shared.limits.receive_max,
        packet_bytes_max: shared.limits.packet_bytes,
        topic_aliases: shared.limits.topic_aliases,
    };
    wire::connack(version, Ok(&granted), room, &mut write);
    let parts = Parts { io, version, room: Room { words, ..room }, identity, outbox, partial, write, keep_alive_s };
    Some((connected(shared, parts, &accepted), goodbye))
}

/// What a handshake leaves behind.
struct Parts {
    io: Box<dyn Io>,
    version: Version,
    room: Room,
    identity: Identity,
    outbox: Arc<Outbox>,
    /// What was read past the CONNECT.
    partial: BytesMut,
    /// The CONNACK.
    write: BytesMut,
    keep_alive_s: u16,
}

fn connected(shared: &Arc<Shared>, parts: Parts, accepted: &Accepted) -> Connection {
    let Parts { io, version, room, identity, outbox, partial, write, keep_alive_s } = parts;
    let now = shared.clock.instant();
    Connection {
        io,
        version,
        room,
        identity,
        from: accepted.from,
        outbox,
        engine: PollSender::new(shared.engine.clone()),
        partial,
        partial_permit: None,
        partial_since: None,
        commands: Vec::new(),
        open_commands: 0,
        open_bytes: 0,
        unacknowledged: 0,
        aliases: Vec::new(),
        expiry_s: accepted.expiry_s,
        write,
        unflushed: false,
        stuck_since: None,
        silence_max: Duration::from_millis(u64::from(keep_alive_s) * 1_500),
        heard: now,
        closing: None,
        over: false,
        sleep: Box::pin(tokio::time::sleep_until(now.into())),
        shared: shared.clone(),
    }
}

/// The client's own, unless it asks for more than there is: only 5.0 can be told another.
fn granted_keep_alive(version: Version, asked_s: u16, max_s: u16) -> u16 {
    if version.is_5() && max_s > 0 && (asked_s == 0 || asked_s > max_s) { max_s } else { asked_s }
}

/// `None` when the peer left. What follows the CONNECT stays in `partial`.
async fn read_connect(
    shared: &Shared,
    io: &mut Box<dyn Io>,
    partial: &mut BytesMut,
) -> Option<Result<Box<Connect>, (Option<Version>, Fault)>> {
    loop {
        match wire::frame(partial, shared.limits.packet_bytes) {
            Err(fault) => return Some(Err((version_of(partial), fault))),
            // What is no CONNECT is not waited for.
            Ok(_) if partial.first().is_some_and(|first| *first != 0x10) => {
                return Some(Err((None, Fault::protocol("the first packet is not a CONNECT"))));
            }
            Ok(Some(frame)) if partial.len() >= frame.total => {
                let version = version_of(partial);
                return Some(match wire::decode(None, frame, partial) {
                    Ok(Packet::Connect(connect)) => Ok(connect),
                    Ok(_) => Err((version, Fault::protocol("the first packet is not a CONNECT"))),
                    Err(fault) => Err((version, fault)),
                });
            }
            Ok(_) => {}
        }
        let read = poll_fn(|ctx| poll_append(io, ctx, partial, READ_BYTES)).await;
        if !matches!(read, Ok(1..)) {
            return None;
        }
    }
}

/// How to tell a client that its CONNECT is wrong: in its own version, if it has said that it speaks MQTT.
fn version_of(packet: &[u8]) -> Option<Version> {
    let frame = wire::frame(packet, u32::MAX).ok()??;
    match packet.get(frame.header..)? {
        // Bridges of mosquitto begin with 0x83 and 0x84, and go on with 3.1.1 if that is refused in its words.
        [0, 4, b'M', b'Q', b'T', b'T', 5..0x80, ..] => Some(Version::V5),
        [0, 4, b'M', b'Q', b'T', b'T', _, ..] => Some(Version::V3_1_1),
        [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', _, ..] => Some(Version::V3_1),
        _ => None,
    }
}

/// Whether the client may connect, as what, and with this will.
async fn admit(shared: &Shared, connect: &Connect, peer: &Peer) -> Result<Identity, (Reason, &'static str)> {
    if connect.authentication_method {
        return Err((Reason::BAD_METHOD, "no authentication method is spoken here"));
    }
    if let Some(identity) = &peer.inner {
        return Ok(identity.clone());
    }
    if shared.is_own(&connect.client) {
        return Err((Reason::NOT_AUTHORIZED, "this client identifier is that of a bridge of this node"));
    }
    let access = shared.access();
    let shown = Credentials {
        client: &connect.client,
        user: connect.user.as_deref(),
        password: connect.password.as_deref(),
        certificate: peer.certificate.as_ref(),
        address: peer.address.map(|address| address.ip()),
    };
    let identity = access.identify(shown).await.map_err(|denied| match denied {
        Denied::Password => (Reason::BAD_USER, "the user or the password is wrong"),
        Denied::NotAuthorized => (Reason::NOT_AUTHORIZED, "this client may not connect"),
        Denied::Busy => (Reason::BUSY, "too many passwords are being checked: try again later"),
    })?;
    if let Some(will) = &connect.will
        && !identity.may_publish(&will.message.topic)
    {
        return Err((Reason::NOT_AUTHORIZED, "this client may not publish to the topic of its will"));
    }
    Ok(identity)
}

async fn ask(shared: &Shared, hello: Hello) -> Option<Result<Accepted, (Reason, &'static str)>> {
    let (reply, answer) = oneshot::channel();
    shared.engine.send(Input::Connect(Box::new(hello), reply)).await.ok()?;
    answer.await.ok()
}

async fn refuse(io: &mut Box<dyn Io>, version: Version, room: Option<Room>, reason: Reason, words: &str) {
    let room = room.unwrap_or(Room { packet_bytes_max: u32::MAX, words: true });
    let mut bytes = BytesMut::new();
    wire::connack(version, Err((reason, words)), room, &mut bytes);
    // A client that is gone is told nothing.
    if io.write_all(&bytes).await.is_ok() {
        linger(io).await;
    }
}
