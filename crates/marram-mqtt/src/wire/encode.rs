//! Our answers and messages become bytes. What is sent for every message is written here; the rest the codec crate writes.

use std::num::NonZeroU16;

use bytes::{BufMut as _, BytesMut};
use bytestring::ByteString;
use marram_core::port::mqtt::{Message, Qos};
use rmqtt_codec::{v3, v5};
use tokio_util::codec::Encoder as _;

use super::{AckKind, Reason, Version};

/// A message on its way to one client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'m> {
    pub(crate) message: &'m Message,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    /// 0 with QoS 0.
    pub(crate) packet: u16,
    pub(crate) subscriptions: &'m [u32],
    /// Seconds until it is of no use.
    pub(crate) expiry_s: Option<u32>,
}

/// What a client takes: the largest packet, and whether it wants reasons in words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) packet_bytes_max: u32,
    pub(crate) words: bool,
}

fn put_length(out: &mut BytesMut, mut length: usize) {
    loop {
        let byte = (length & 0x7f) as u8;
        length >>= 7;
        out.put_u8(byte | if length > 0 { 0x80 } else { 0 });
        if length == 0 {
            return;
        }
    }
}

const fn length_len(length: usize) -> usize {
    match length {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

fn put_field(out: &mut BytesMut, field: &[u8]) {
    // Every field has come in as one, or is of this node's own and was checked as if it had: none is cut.
    out.put_u16(u16::try_from(field.len()).unwrap_or(u16::MAX));
    out.put_slice(&field[..field.len().min(usize::from(u16::MAX))]);
}

/// Bytes of the properties, without their length.
fn properties_len(out: &Outgoing<'_>) -> usize {
    let mut bytes = out.expiry_s.map_or(0, |_| 5);
    bytes += out.subscriptions.iter().map(|id| 1 + length_len(*id as usize)).sum::<usize>();
    if let Some(p) = &out.message.properties {
        bytes += if p.utf8 { 2 } else { 0 };
        bytes += p.content_type.as_ref().map_or(0, |text| 3 + text.len());
        bytes += p.response_topic.as_ref().map_or(0, |text| 3 + text.len());
        bytes += p.correlation.as_ref().map_or(0, |data| 3 + data.len());
        bytes += p.user.iter().map(|(name, value)| 5 + name.len() + value.len()).sum::<usize>();
    }
    bytes
}

fn remaining_len(version: Version, out: &Outgoing<'_>) -> usize {
    let properties = if version.is_5() {
        let bytes = properties_len(out);
        length_len(bytes) + bytes
    } else {
        0
    };
    2 + out.message.topic.len() + if out.packet == 0 { 0 } else { 2 } + properties + out.message.payload.len()
}

/// Bytes of the whole PUBLISH.
pub(crate) fn publish_len(version: Version, out: &Outgoing<'_>) -> usize {
    let remaining = remaining_len(version, out);
    1 + length_len(remaining) + remaining
}

/// Writes a PUBLISH.
pub(crate) fn publish(version: Version, out: &Outgoing<'_>, to: &mut BytesMut) {
    let remaining = remaining_len(version, out);
    to.reserve(5 + remaining);
    to.put_u8(0x30 | u8::from(out.dup) << 3 | out.qos.level() << 1 | u8::from(out.retain));
    put_length(to, remaining);
    put_field(to, out.message.topic.as_bytes());
    if out.packet != 0 {
        to.put_u16(out.packet);
    }
    if version.is_5() {
        put_length(to, properties_len(out));
        put_properties(out, to);
    }
    to.put_slice(&out.message.payload);
}

fn put_properties(out: &Outgoing<'_>, to: &mut BytesMut) {
    if let Some(seconds) = out.expiry_s {
        to.put_u8(0x02);
        to.put_u32(seconds);
    }
    for id in out.subscriptions {
        to.put_u8(0x0b);
        put_length(to, *id as usize);
    }
    let Some(p) = &out.message.properties else { return };
    if p.utf8 {
        to.put_slice(&[0x01, 1]);
    }
    for (kind, field) in [
        (0x03, p.content_type.as_deref().map(str::as_bytes)),
        (0x08, p.response_topic.as_deref().map(str::as_bytes)),
        (0x09, p.correlation.as_deref()),
    ] {
        if let Some(field) = field {
            to.put_u8(kind);
            put_field(to, field);
        }
    }
    for (name, value) in &p.user {
        to.put_u8(0x26);
        put_field(to, name.as_bytes());
        put_field(to, value.as_bytes());
    }
}

/// Writes a PUBACK, PUBREC, PUBREL or PUBCOMP; with its reason in words where there is room and they are wanted.
pub(crate) fn ack(
    version: Version,
    kind: AckKind,
    packet: NonZeroU16,
    reason: Reason,
    words: Option<&str>,
    room: Room,
    to: &mut BytesMut,
) {
    let first = match kind {
        AckKind::Ack => 0x40,
        AckKind::Rec => 0x50,
        AckKind::Rel => 0x62,
        AckKind::Comp => 0x70,
    };
    to.put_u8(first);
    if !version.is_5() || reason == Reason::SUCCESS {
        to.put_u8(2);
        to.put_u16(packet.get());
        return;
    }
    let words =
        words.filter(|words| room.words && words.len() < 100 && 10 + words.len() <= room.packet_bytes_max as usize);
    match words {
        None => {
            to.put_u8(3);
            to.put_u16(packet.get());
            to.put_u8(reason.0);
        }
        Some(words) => {
            to.put_u8(7 + words.len() as u8);
            to.put_u16(packet.get());
            to.put_u8(reason.0);
            to.put_u8(3 + words.len() as u8);
            to.put_u8(0x1f);
            put_field(to, words.as_bytes());
        }
    }
}

/// Writes a PINGRESP.
pub(crate) fn pong(to: &mut BytesMut) {
    to.put_slice(&[0xd0, 0]);
}

/// Writes a SUBACK: a reason for each filter, in their order.
pub(crate) fn suback(version: Version, packet: NonZeroU16, reasons: &[Reason], to: &mut BytesMut) {
    let properties = usize::from(version.is_5());
    to.put_u8(0x90);
    put_length(to, 2 + properties + reasons.len());
    to.put_u16(packet.get());
    if version.is_5() {
        to.put_u8(0);
    }
    for reason in reasons {
        // 3.1.1 §3.9.3 knows one failure.
        to.put_u8(if !version.is_5() && reason.is_error() { 0x80 } else { reason.0 });
    }
}

/// Writes an UNSUBACK: in 5.0 a reason for each filter, in their order.
pub(crate) fn unsuback(version: Version, packet: NonZeroU16, reasons: &[Reason], to: &mut BytesMut) {
    to.put_u8(0xb0);
    if !version.is_5() {
        to.put_u8(2);
        to.put_u16(packet.get());
        return;
    }
    put_length(to, 3 + reasons.len());
    to.put_u16(packet.get());
    to.put_u8(0);
    reasons.iter().for_each(|reason| to.put_u8(reason.0));
}

/// Writes a DISCONNECT, which only 5.0 has from a server.
pub(crate) fn disconnect(version: Version, reason: Reason, words: Option<&str>, room: Room, to: &mut BytesMut) {
    if !version.is_5() {
        return;
    }
    to.put_u8(0xe0);
    let words =
        words.filter(|words| room.words && words.len() < 100 && 8 + words.len() <= room.packet_bytes_max as usize);
    match words {
        None => to.put_slice(&[1, reason.0]),
        Some(words) => {
            to.put_slice(&[5 + words.len() as u8, reason.0, 3 + words.len() as u8, 0x1f]);
            put_field(to, words.as_bytes());
        }
    }
}

/// What a CONNACK of 5.0 tells the client besides the reason.
pub(crate) struct Granted<'g> {
    pub(crate) session_present: bool,
    pub(crate) assigned: Option<&'g str>,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) keep_alive_s: Option<u16>,
    pub(crate) receive_max: u16,
    pub(crate) packet_bytes_max: u32,
    pub(crate) topic_aliases: u16,
}

/// Writes a CONNACK: what was granted, or why not and in which words.
pub(crate) fn connack(version: Version, answer: Result<&Granted<'_>, (Reason, &str)>, room: Room, to: &mut BytesMut) {
    if !version.is_5() {
        let (present, code) = match answer {
            Ok(granted) => (granted.session_present, v3::ConnectAckReason::ConnectionAccepted),
            Err((reason, _)) => (false, return_code(reason)),
        };
        to.put_slice(&[0x20, 2, u8::from(present), code.into()]);
        return;
    }
    let packet = match answer {
        Ok(granted) => v5::ConnectAck {
            session_present: granted.session_present,
            session_expiry_interval_secs: granted.expiry_s,
            receive_max: NonZeroU16::new(granted.receive_max).unwrap_or(NonZeroU16::MIN),
            max_packet_size: Some(granted.packet_bytes_max),
            assigned_client_id: granted.assigned.map(ByteString::from),
            topic_alias_max: granted.topic_aliases,
            server_keepalive_sec: granted.keep_alive_s,
            ..v5::ConnectAck::default()
        },
        Err((reason, words)) => {
            let fits = room.words && 16 + words.len() <= room.packet_bytes_max as usize;
            v5::ConnectAck {
                reason_code: reason.0.try_into().unwrap_or(v5::ConnectAckReason::UnspecifiedError),
                reason_string: fits.then(|| words.into()),
                ..v5::ConnectAck::default()
            }
        }
    };
    // It fails for strings of 64 KiB, and there are none.
    let _ = v5::Codec::new(0, 0).encode(packet.into(), to);
}

/// The return code of 3.1.1 §3.2.2.3 that comes nearest to a reason.
fn return_code(reason: Reason) -> v3::ConnectAckReason {
    match reason {
        Reason::VERSION => v3::ConnectAckReason::UnacceptableProtocolVersion,
        Reason::CLIENT_ID => v3::ConnectAckReason::IdentifierRejected,
        Reason::BAD_USER => v3::ConnectAckReason::BadUserNameOrPassword,
        Reason::NOT_AUTHORIZED | Reason::BAD_METHOD => v3::ConnectAckReason::NotAuthorized,
        _ => v3::ConnectAckReason::ServiceUnavailable,
    }
}
