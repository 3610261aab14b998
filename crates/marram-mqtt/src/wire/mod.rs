//! Bytes to packets and back, for both versions at once.
//!
//! The codec crate takes packets apart. What it lets pass is checked here, before or after it: minimal lengths, reserved
//! bits, trailing bytes, U+0000, topics, and everything that one version forbids and the other does not.

mod check;
mod decode;
mod encode;
mod frame;

use std::num::NonZeroU16;

use bytes::Bytes;
use bytestring::ByteString;
use marram_core::port::mqtt::{Qos, Will};

pub(crate) use decode::{check_message, check_properties, decode};
pub(crate) use encode::{
    Granted, Outgoing, Room, ack, connack, disconnect, pong, publish, publish_len, suback, unsuback,
};
pub(crate) use frame::{Frame, frame};

/// The versions of MQTT that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.1, which differs from 3.1.1 in its name and in nothing that a server does.
    V3_1,
    /// 3.1.1.
    V3_1_1,
    /// 5.0.
    V5,
}

impl Version {
    /// Whether reasons and properties are spoken.
    pub(crate) const fn is_5(self) -> bool {
        matches!(self, Self::V5)
    }

    /// The version as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V3_1 => "3.1",
            Self::V3_1_1 => "3.1.1",
            Self::V5 => "5.0",
        }
    }
}

/// A reason code (MQTT 5.0 §2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reason(pub(crate) u8);

impl Reason {
    pub(crate) const SUCCESS: Self = Self(0x00);
    pub(crate) const NO_MATCHING_SUBSCRIBERS: Self = Self(0x10);
    pub(crate) const NO_SUBSCRIPTION: Self = Self(0x11);
    pub(crate) const UNSPECIFIED: Self = Self(0x80);
    pub(crate) const MALFORMED: Self = Self(0x81);
    pub(crate) const PROTOCOL: Self = Self(0x82);
    pub(crate) const IMPLEMENTATION: Self = Self(0x83);
    pub(crate) const VERSION: Self = Self(0x84);
    pub(crate) const CLIENT_ID: Self = Self(0x85);
    pub(crate) const BAD_USER: Self = Self(0x86);
    pub(crate) const NOT_AUTHORIZED: Self = Self(0x87);
    pub(crate) const UNAVAILABLE: Self = Self(0x88);
    pub(crate) const BUSY: Self = Self(0x89);
    pub(crate) const SHUTTING_DOWN: Self = Self(0x8b);
    pub(crate) const BAD_METHOD: Self = Self(0x8c);
    pub(crate) const KEEP_ALIVE: Self = Self(0x8d);
    pub(crate) const TAKEN_OVER: Self = Self(0x8e);
    pub(crate) const FILTER_INVALID: Self = Self(0x8f);
    pub(crate) const TOPIC_INVALID: Self = Self(0x90);
    pub(crate) const NO_SUCH_PACKET: Self = Self(0x92);
    pub(crate) const RECEIVE_MAX: Self = Self(0x93);
    pub(crate) const ALIAS_INVALID: Self = Self(0x94);
    pub(crate) const TOO_LARGE: Self = Self(0x95);
    pub(crate) const QUOTA: Self = Self(0x97);
    pub(crate) const ADMINISTRATIVE: Self = Self(0x98);
    pub(crate) const PAYLOAD_FORMAT: Self = Self(0x99);

    /// Whether it says that something failed.
    pub(crate) const fn is_error(self) -> bool {
        self.0 >= 0x80
    }
}

/// Why bytes are not a packet that may be sent: the reason that a 5.0 client is told, and a line for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) reason: Reason,
    pub(crate) why: &'static str,
}

impl Fault {
    pub(crate) const fn malformed(why: &'static str) -> Self {
        Self { reason: Reason::MALFORMED, why }
    }

    pub(crate) const fn protocol(why: &'static str) -> Self {
        Self { reason: Reason::PROTOCOL, why }
    }

    pub(crate) const fn new(reason: Reason, why: &'static str) -> Self {
        Self { reason, why }
    }
}

/// What a client may send.
#[derive(Debug)]
pub(crate) enum Packet {
    Connect(Box<Connect>),
    Publish(Box<Inbound>),
    Ack(AckKind, NonZeroU16, Reason),
    Subscribe(Box<Subscribe>),
    Unsubscribe(NonZeroU16, Vec<ByteString>),
    Ping,
    Disconnect(Reason, Option<u32>),
    Auth,
}

/// The four packets that move a message on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AckKind {
    Ack,
    Rec,
    Rel,
    Comp,
}

/// A CONNECT, checked.
#[derive(Debug)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) clean: bool,
    pub(crate) client: ByteString,
    pub(crate) keep_alive_s: u16,
    /// What a 3.1.1 client means: none with a clean session, for ever without.
    pub(crate) expiry_s: u32,
    pub(crate) receive_max: u16,
    pub(crate) packet_bytes_max: u32,
    /// Reason strings are wanted.
    pub(crate) problem_information: bool,
    pub(crate) authentication_method: bool,
    pub(crate) user: Option<ByteString>,
    pub(crate) password: Option<Bytes>,
    pub(crate) will: Option<Will>,
}

/// A PUBLISH of a client, its topic not resolved yet.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// Empty when there is an alias.
    pub(crate) topic: ByteString,
    pub(crate) alias: Option<NonZeroU16>,
    pub(crate) payload: Bytes,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    /// With QoS 1 and 2 only.
    pub(crate) packet: Option<NonZeroU16>,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) properties: Option<Box<marram_core::port::mqtt::Properties>>,
}

/// A SUBSCRIBE, its filters not checked yet.
#[derive(Debug)]
pub(crate) struct Subscribe {
    pub(crate) packet: NonZeroU16,
    /// 0 for none.
    pub(crate) id: u32,
    pub(crate) filters: Vec<(ByteString, Options)>,
}

/// Options of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) retained: Retained,
}

/// When retained messages are sent at a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retained {
    Always,
    IfNew,
    Never,
}

#[cfg(test)]
mod tests;
