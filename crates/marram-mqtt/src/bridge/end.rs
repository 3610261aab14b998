//! One end of a bridge: a client of a broker.

use std::io;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{self, RetainHandling, SubscriptionOptions};
use rmqtt_codec::{MqttCodec, MqttPacket, v3};
use tokio::io::{AsyncWriteExt as _, WriteHalf};
use tokio_util::codec::Encoder as _;

use super::reader::{Reader, unexpected};
use super::{NO_KEEP_ALIVE, PONG_TIME};
use crate::connection::Io;
use crate::limits::{BRIDGE_CONNECT_TIME, BRIDGE_WRITE_TIME};
use crate::wire::Version;

/// Why an end is no more, as what is said of its broker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndError {
    #[error("is not connected: {0}")]
    Io(#[from] io::Error),
    #[error("did not accept the bridge: reason {0:#04x}")]
    Refused(u8),
    #[error("did not grant a subscription: reason {0:#04x}")]
    NotGranted(u8),
    #[error("ended the connection: reason {0:#04x}")]
    Farewell(u8),
    #[error("broke the protocol: {0}")]
    Protocol(String),
    #[error("did not answer in time")]
    Time,
    #[error("has said nothing for too long")]
    Silent,
}

/// What the end says of itself.
pub(crate) struct Hello {
    pub(crate) client: String,
    pub(crate) version: Version,
    pub(crate) keep_alive_s: u16,
    pub(crate) user: Option<(String, String)>,
    /// Messages that it takes before they are acknowledged.
    pub(crate) receive_max: u16,
    /// Bytes of a packet that it takes. Only 5.0 can be told; larger ones of 3.1.1 are passed over.
    pub(crate) packet_bytes_max: u32,
}

/// A connected client.
pub(crate) struct End {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    /// From one ping to the next.
    pub(crate) keep_alive: Duration,
    /// Messages that the broker takes before it has acknowledged them.
    pub(crate) receive_max: u16,
    /// Bytes of a packet that the broker takes.
    pub(crate) packet_bytes_max: u32,
    /// Whether the broker takes messages that it acknowledges (MQTT 5.0 §3.2.2.3.4).
    pub(crate) acknowledges: bool,
}

pub(crate) struct Writer {
    io: WriteHalf<Box<dyn Io>>,
    codec: MqttCodec,
    is_5: bool,
    /// The broker retains messages.
    retains: bool,
    buffer: BytesMut,
}

pub(super) fn codec(version: Version) -> MqttCodec {
    if version.is_5() { MqttCodec::V5(v5::Codec::new(0, 0)) } else { MqttCodec::V3(v3::Codec::new(0)) }
}

impl End {
    /// Connects to a session that lasts, and subscribes to `filters` at QoS 1.
    pub(crate) async fn connect(
        io: Box<dyn Io>,
        hello: Hello,
        filters: impl Iterator<Item = &str>,
    ) -> Result<Self, EndError> {
        let (reading, writing) = tokio::io::split(io);
        let (version, is_5) = (hello.version, hello.version.is_5());
        let mut reader = Reader {
            packet_bytes_max: hello.packet_bytes_max,
            io: reading,
            version,
            buffer: BytesMut::new(),
            silence_max: BRIDGE_CONNECT_TIME,
        };
        let mut writer =
            Writer { io: writing, codec: codec(hello.version), is_5, retains: true, buffer: BytesMut::new() };
        let mut keep_alive_s = hello.keep_alive_s;
        writer.send(connect(hello)).await?;
        // 3.1.1 says nothing of what it takes.
        let (mut receive_max, mut packet_bytes_max, mut acknowledges) = (u16::MAX, u32::MAX, true);
        match reader.packet().await? {
            MqttPacket::V3(v3::Packet::ConnectAck(ack)) if u8::from(ack.return_code) == 0 => {}
            MqttPacket::V3(v3::Packet::ConnectAck(ack)) => return Err(EndError::Refused(ack.return_code.into())),
            MqttPacket::V5(v5::Packet::ConnectAck(ack)) if u8::from(ack.reason_code) == 0 => {
                receive_max = ack.receive_max.get();
                packet_bytes_max = ack.max_packet_size.unwrap_or(u32::MAX);
                keep_alive_s = ack.server_keepalive_sec.unwrap_or(keep_alive_s);
                acknowledges = ack.max_qos != QoS::AtMostOnce;
                writer.retains = ack.retain_available;
            }
            MqttPacket::V5(v5::Packet::ConnectAck(ack)) => return Err(EndError::Refused(ack.reason_code.into())),
            other => return Err(unexpected(&other)),
        }
        let keep_alive = if keep_alive_s == 0 { NO_KEEP_ALIVE } else { Duration::from_secs(keep_alive_s.into()) };
        // By then there was a ping, and its answer is missing (§3.1.2.10).
        reader.silence_max = keep_alive + PONG_TIME.min(keep_alive / 2);
        let filters: Vec<_> = filters.map(Into::into).collect();
        if !filters.is_empty() {
            writer.send(subscribe(writer.is_5, filters)).await?;
        }
        Ok(Self { reader, writer, keep_alive, receive_max, packet_bytes_max, acknowledges })
    }

    /// Says farewell; the session stays.
    pub(crate) async fn close(mut self) {
        if self.writer.write_all(&[0xe0, 0]).await.is_ok() {
            while self.reader.next().await.is_ok() {}
        }
    }
}

fn connect(hello: Hello) -> MqttPacket {
    let (user, password) = hello.user.unzip();
    let (user, password) = (user.map(Into::into), password.map(Bytes::from));
    if hello.version.is_5() {
        return MqttPacket::V5(v5::Packet::Connect(Box::new(v5::Connect {
            keep_alive: hello.keep_alive_s,
            session_expiry_interval_secs: u32::MAX,
            receive_max: NonZeroU16::new(hello.receive_max),
            max_packet_size: NonZeroU32::new(hello.packet_bytes_max),
            client_id: hello.client.into(),
            username: user,
            password,
            ..v5::Connect::default()
        })));
    }
    MqttPacket::V3(v3::Packet::Connect(Box::new(v3::Connect {
        keep_alive: hello.keep_alive_s,
        client_id: hello.client.into(),
        username: user,
        password,
        ..v3::Connect::default()
    })))
}

fn subscribe(is_5: bool, filters: Vec<bytestring::ByteString>) -> MqttPacket {
    if !is_5 {
        let topic_filters = filters.into_iter().map(|filter| (filter, QoS::AtLeastOnce)).collect();
        return MqttPacket::V3(v3::Packet::Subscribe { packet_id: NonZeroU16::MAX, topic_filters });
    }
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::AtSubscribeNew,
    };
    MqttPacket::V5(v5::Packet::Subscribe(v5::Subscribe {
        packet_id: NonZeroU16::MAX,
        id: None,
        user_properties: Vec::new(),
        topic_filters: filters.into_iter().map(|filter| (filter, options)).collect(),
    }))
}

impl Writer {
    async fn send(&mut self, packet: MqttPacket) -> Result<(), EndError> {
        self.buffer.clear();
        self.codec.encode(packet, &mut self.buffer).map_err(|error| EndError::Protocol(error.to_string()))?;
        let bytes = self.buffer.split().freeze();
        self.write_all(&bytes).await
    }

    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), EndError> {
        let written = async {
            self.io.write_all(bytes).await?;
            self.io.flush().await
        };
        Ok(tokio::time::timeout(BRIDGE_WRITE_TIME, written).await.map_err(|_| EndError::Time)??)
    }

    /// Publishes; what the version has no word for is left out.
    pub(crate) async fn publish(&mut self, mut publish: Box<Publish>) -> Result<(), EndError> {
        publish.retain &= self.retains;
        if !self.is_5 {
            publish.properties = None;
            return self.send(MqttPacket::V3(v3::Packet::Publish(publish))).await;
        }
        self.send(MqttPacket::V5(v5::Packet::Publish(publish))).await
    }

    /// PUBACK.
    pub(crate) async fn acknowledge(&mut self, packet: NonZeroU16) -> Result<(), EndError> {
        let [high, low] = packet.get().to_be_bytes();
        self.write_all(&[0x40, 2, high, low]).await
    }

    /// PINGREQ.
    pub(crate) async fn ping(&mut self) -> Result<(), EndError> {
        self.write_all(&[0xc0, 0]).await
    }
}
