//! One end of a bridge: a client of a broker.

use std::io;
use std::num::NonZeroU16;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{self, RetainHandling, SubscriptionOptions};
use rmqtt_codec::{MqttCodec, MqttPacket, v3};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio_util::codec::{Decoder as _, Encoder as _};

use crate::connection::Io;
use crate::limits::{BRIDGE_PACKET_BYTES_MAX, BRIDGE_RECEIVE_MAX, BRIDGE_WRITE_TIME};
use crate::wire::{self, Reason, Version};

/// Why an end is no more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the broker did not accept the bridge: reason {0:#04x}")]
    Refused(u8),
    #[error("the broker did not grant a subscription: reason {0:#04x}")]
    NotGranted(u8),
    #[error("the broker could not take a message now: reason {0:#04x}")]
    NotTaken(u8),
    #[error("the broker ended the connection: reason {0:#04x}")]
    Farewell(u8),
    #[error("the broker broke the protocol: {0}")]
    Protocol(String),
    #[error("the broker did not answer in time")]
    Time,
}

/// What the end says of itself.
pub(crate) struct Hello {
    pub(crate) client: String,
    pub(crate) version: Version,
    pub(crate) keep_alive_s: u16,
    pub(crate) user: Option<(String, String)>,
}

/// What comes from the broker after its CONNACK.
pub(crate) enum Got {
    Message(Box<Publish>),
    /// An acknowledgement of a message of ours, with its reason.
    Acknowledged(NonZeroU16, Reason),
    Other,
}

/// A connected client.
pub(crate) struct End {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    pub(crate) keep_alive: Duration,
}

pub(crate) struct Reader {
    io: ReadHalf<Box<dyn Io>>,
    codec: MqttCodec,
    buffer: BytesMut,
}

pub(crate) struct Writer {
    io: WriteHalf<Box<dyn Io>>,
    codec: MqttCodec,
    is_5: bool,
    buffer: BytesMut,
}

fn codec(version: Version) -> MqttCodec {
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
        let mut reader = Reader { io: reading, codec: codec(hello.version), buffer: BytesMut::new() };
        let mut writer =
            Writer { io: writing, codec: codec(hello.version), is_5: hello.version.is_5(), buffer: BytesMut::new() };
        let keep_alive = Duration::from_secs(hello.keep_alive_s.into());
        writer.send(connect(hello)).await?;
        match reader.packet().await? {
            MqttPacket::V3(v3::Packet::ConnectAck(ack)) if u8::from(ack.return_code) == 0 => {}
            MqttPacket::V3(v3::Packet::ConnectAck(ack)) => return Err(EndError::Refused(ack.return_code.into())),
            MqttPacket::V5(v5::Packet::ConnectAck(ack)) if u8::from(ack.reason_code) == 0 => {}
            MqttPacket::V5(v5::Packet::ConnectAck(ack)) => return Err(EndError::Refused(ack.reason_code.into())),
            other => return Err(unexpected(&other)),
        }
        let filters: Vec<_> = filters.map(Into::into).collect();
        if !filters.is_empty() {
            writer.send(subscribe(writer.is_5, filters)).await?;
        }
        Ok(Self { reader, writer, keep_alive })
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
            receive_max: NonZeroU16::new(BRIDGE_RECEIVE_MAX),
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

fn unexpected(packet: &MqttPacket) -> EndError {
    let kind = match packet {
        MqttPacket::V3(packet) => packet.packet_type(),
        MqttPacket::V5(packet) => packet.packet_type(),
        MqttPacket::Version(_) => 0,
    };
    EndError::Protocol(format!("a packet of type {} is not expected here", kind >> 4))
}

impl Reader {
    async fn packet(&mut self) -> Result<MqttPacket, EndError> {
        loop {
            let frame = wire::frame(&self.buffer, BRIDGE_PACKET_BYTES_MAX);
            if let Some(frame) = frame.map_err(|fault| EndError::Protocol(fault.why.into()))?
                && frame.total <= self.buffer.len()
            {
                let packet = self.codec.decode(&mut self.buffer);
                let packet = packet.map_err(|error| EndError::Protocol(error.to_string()))?;
                if let Some((packet, _)) = packet {
                    return Ok(packet);
                }
            }
            if self.io.read_buf(&mut self.buffer).await? == 0 {
                return Err(EndError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// The next thing that matters to a bridge.
    pub(crate) async fn next(&mut self) -> Result<Got, EndError> {
        Ok(match self.packet().await? {
            MqttPacket::V3(v3::Packet::Publish(publish)) | MqttPacket::V5(v5::Packet::Publish(publish)) => {
                Got::Message(publish)
            }
            MqttPacket::V3(v3::Packet::PublishAck { packet_id }) => Got::Acknowledged(packet_id, Reason::SUCCESS),
            MqttPacket::V5(v5::Packet::PublishAck(ack)) => {
                Got::Acknowledged(ack.packet_id, Reason(ack.reason_code.into()))
            }
            MqttPacket::V3(v3::Packet::SubscribeAck { status, .. }) => {
                match status.iter().find(|status| matches!(status, v3::SubscribeReturnCode::Failure)) {
                    Some(_) => return Err(EndError::NotGranted(0x80)),
                    None => Got::Other,
                }
            }
            MqttPacket::V5(v5::Packet::SubscribeAck(ack)) => {
                match ack.status.iter().map(|status| u8::from(*status)).find(|status| *status >= 0x80) {
                    Some(status) => return Err(EndError::NotGranted(status)),
                    None => Got::Other,
                }
            }
            MqttPacket::V3(v3::Packet::PingResponse) | MqttPacket::V5(v5::Packet::PingResponse) => Got::Other,
            MqttPacket::V5(v5::Packet::Disconnect(farewell)) => {
                return Err(EndError::Farewell(farewell.reason_code.into()));
            }
            other => return Err(unexpected(&other)),
        })
    }
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
    pub(crate) async fn publish(&mut self, mut publish: Publish) -> Result<(), EndError> {
        if !self.is_5 {
            publish.properties = None;
            return self.send(MqttPacket::V3(v3::Packet::Publish(Box::new(publish)))).await;
        }
        if let Some(properties) = &mut publish.properties {
            properties.topic_alias = None;
            properties.subscription_ids.clear();
        }
        self.send(MqttPacket::V5(v5::Packet::Publish(Box::new(publish)))).await
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
