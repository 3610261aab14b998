//! A client that does as it is told: every packet is one call, and nothing is acknowledged by itself.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{self, PublishProperties, RetainHandling, SubscriptionOptions};
use rmqtt_codec::{MqttCodec, MqttPacket, v3};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::codec::{Decoder as _, Encoder as _};

/// Nothing takes longer than this.
pub const DEADLINE: Duration = Duration::from_secs(10);

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Old,
    New,
}
pub use Version::{New, Old};

pub const BOTH: [Version; 2] = [Old, New];

pub struct Client {
    io: Box<dyn Io>,
    pub version: Version,
    codec: MqttCodec,
    read: BytesMut,
}

/// What comes from the broker.
#[derive(Clone, Debug, PartialEq)]
pub enum Got {
    /// Session present, reason, and what 5.0 says.
    ConnAck(bool, u8, Option<Box<v5::ConnectAck>>),
    Message(Box<Publish>),
    PubAck(u16, u8),
    PubRec(u16, u8),
    PubRel(u16, u8),
    PubComp(u16, u8),
    SubAck(u16, Vec<u8>),
    UnsubAck(u16, Vec<u8>),
    Pong,
    /// A DISCONNECT.
    Farewell(u8),
    /// The end of the stream.
    End,
}

/// A CONNECT.
#[derive(Clone, Debug, Default)]
pub struct Hello {
    pub clean: bool,
    pub expiry: u32,
    pub keep_alive: u16,
    pub user: Option<(&'static str, &'static str)>,
    pub will: Option<Will>,
    pub receive_max: Option<u16>,
    pub packet_max: Option<u32>,
    pub quiet: bool,
    pub method: Option<&'static str>,
}

#[derive(Clone, Debug, Default)]
pub struct Will {
    pub topic: &'static str,
    pub payload: &'static [u8],
    pub qos: u8,
    pub retain: bool,
    pub delay: u32,
}

/// A clean start, and nothing kept.
pub fn fresh() -> Hello {
    Hello { clean: true, ..Hello::default() }
}

/// A session that is kept for an hour; taken up if there is one.
pub fn kept() -> Hello {
    Hello { expiry: 3_600, ..Hello::default() }
}

pub fn qos(level: u8) -> QoS {
    QoS::try_from(level).unwrap()
}

pub fn id(packet: u16) -> NonZeroU16 {
    NonZeroU16::new(packet).unwrap()
}

impl Client {
    pub async fn open(address: SocketAddr, version: Version) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap(), version)
    }

    pub fn over(io: impl Io + 'static, version: Version) -> Self {
        let codec = match version {
            Old => MqttCodec::V3(v3::Codec::new(0)),
            New => MqttCodec::V5(v5::Codec::new(0, 0)),
        };
        Self { io: Box::new(io), version, codec, read: BytesMut::new() }
    }

    /// Connects and is accepted. Whether there was a session.
    pub async fn connect(address: SocketAddr, version: Version, client: &str, hello: Hello) -> (Self, bool) {
        let mut this = Self::open(address, version).await;
        match this.hello(client, hello).await {
            Got::ConnAck(present, 0, _) => (this, present),
            other => panic!("{client} was not accepted: {other:?}"),
        }
    }

    pub async fn hello(&mut self, client: &str, hello: Hello) -> Got {
        let (user, password) = hello.user.unzip();
        let password = password.map(|password| Bytes::from_static(password.as_bytes()));
        let packet = match self.version {
            Old => MqttPacket::V3(v3::Packet::Connect(Box::new(v3::Connect {
                clean_session: hello.clean || (hello.expiry == 0 && client.is_empty()),
                keep_alive: hello.keep_alive,
                client_id: client.into(),
                username: user.map(Into::into),
                password,
                last_will: hello.will.map(|will| v3::LastWill {
                    qos: qos(will.qos),
                    retain: will.retain,
                    topic: will.topic.into(),
                    message: Bytes::from_static(will.payload),
                }),
                ..v3::Connect::default()
            }))),
            New => MqttPacket::V5(v5::Packet::Connect(Box::new(v5::Connect {
                clean_start: hello.clean,
                keep_alive: hello.keep_alive,
                session_expiry_interval_secs: hello.expiry,
                client_id: client.into(),
                username: user.map(Into::into),
                password,
                receive_max: hello.receive_max.and_then(NonZeroU16::new),
                max_packet_size: hello.packet_max.and_then(NonZeroU32::new),
                request_problem_info: !hello.quiet,
                auth_method: hello.method.map(Into::into),
                last_will: hello.will.map(|will| v5::LastWill {
                    qos: qos(will.qos),
                    retain: will.retain,
                    topic: will.topic.into(),
                    message: Bytes::from_static(will.payload),
                    will_delay_interval_sec: (will.delay > 0).then_some(will.delay),
                    correlation_data: None,
                    message_expiry_interval: None,
                    content_type: None,
                    user_properties: vec![("why".into(), "gone".into()), ("a".into(), "b".into())],
                    is_utf8_payload: None,
                    response_topic: None,
                }),
                ..v5::Connect::default()
            }))),
        };
        self.send(packet).await;
        self.get().await
    }

    pub async fn send(&mut self, packet: MqttPacket) {
        let mut bytes = BytesMut::new();
        self.codec.encode(packet, &mut bytes).unwrap();
        self.raw(&bytes).await;
    }

    /// Sends these bytes. That the broker has closed is for the test to find out by reading.
    pub async fn raw(&mut self, bytes: &[u8]) {
        let _ = self.io.write_all(bytes).await;
    }

    /// The next packet, whatever it is.
    pub async fn get(&mut self) -> Got {
        match tokio::time::timeout(DEADLINE, self.next()).await {
            Ok(got) => got,
            Err(_) => panic!("nothing came"),
        }
    }

    async fn next(&mut self) -> Got {
        loop {
            if let Some((packet, _)) = self.codec.decode(&mut self.read).expect("the broker sends packets") {
                return got(packet);
            }
            if !matches!(self.io.read_buf(&mut self.read).await, Ok(1..)) {
                assert!(self.read.is_empty(), "half a packet");
                return Got::End;
            }
        }
    }

    /// The next bytes, whatever they are.
    pub async fn bytes(&mut self, count: usize) -> BytesMut {
        while self.read.len() < count {
            let read = tokio::time::timeout(DEADLINE, self.io.read_buf(&mut self.read)).await;
            assert!(matches!(read, Ok(Ok(1..))), "fewer bytes came");
        }
        self.read.split_to(count)
    }

    /// The next packet is a message.
    pub async fn message(&mut self) -> Publish {
        match self.get().await {
            Got::Message(message) => *message,
            other => panic!("no message, but {other:?}"),
        }
    }

    /// Everything that was sent to this client before this call has come: nothing but what is given back.
    pub async fn quiet(&mut self) -> Vec<Got> {
        self.ping().await;
        let mut all = Vec::new();
        loop {
            match self.get().await {
                Got::Pong => return all,
                other => all.push(other),
            }
        }
    }

    /// The connection ends, with this reason if the version has one.
    pub async fn closed(&mut self, reason: u8) {
        let mut said = None;
        loop {
            match self.get().await {
                Got::Farewell(reason) => said = Some(reason),
                Got::End => break,
                other => assert!(said.is_none(), "{other:?} after a DISCONNECT"),
            }
        }
        assert_eq!(said, (self.version == New).then_some(reason));
    }

    pub async fn ping(&mut self) {
        self.raw(&[0xc0, 0]).await;
    }

    pub async fn publish(&mut self, topic: &str, payload: &[u8], level: u8, packet: u16) {
        self.publish_with(message(topic, payload, level, packet)).await;
    }

    pub async fn publish_with(&mut self, publish: Publish) {
        let publish = Box::new(publish);
        self.send(match self.version {
            Old => MqttPacket::V3(v3::Packet::Publish(publish)),
            New => MqttPacket::V5(v5::Packet::Publish(publish)),
        })
        .await;
    }

    /// Publishes at QoS 1 and waits until that is acknowledged.
    pub async fn put(&mut self, topic: &str, payload: &[u8]) {
        self.publish(topic, payload, 1, 1).await;
        let got = self.get().await;
        assert!(matches!(got, Got::PubAck(1, 0 | 0x10)), "{got:?}");
    }

    /// Publishes at QoS 1 to be retained.
    pub async fn retain(&mut self, topic: &str, payload: &[u8], level: u8) {
        self.publish_with(Publish { retain: true, ..message(topic, payload, level, if level > 0 { 1 } else { 0 }) })
            .await;
        match level {
            0 => assert_eq!(self.quiet().await, []),
            1 => assert!(matches!(self.get().await, Got::PubAck(1, 0 | 0x10))),
            _ => {
                assert!(matches!(self.get().await, Got::PubRec(1, 0 | 0x10)));
                self.ack(0x62, 1).await;
                assert_eq!(self.get().await, Got::PubComp(1, 0));
            }
        }
    }

    /// Sends an acknowledgement: 0x40 PUBACK, 0x50 PUBREC, 0x62 PUBREL, 0x70 PUBCOMP.
    pub async fn ack(&mut self, first: u8, packet: u16) {
        let [high, low] = packet.to_be_bytes();
        self.raw(&[first, 2, high, low]).await;
    }

    pub async fn subscribe(&mut self, filter: &str, level: u8) -> u8 {
        self.subscribe_with(filter, options(level), None).await
    }

    pub async fn subscribe_with(&mut self, filter: &str, options: SubscriptionOptions, number: Option<u32>) -> u8 {
        let packet = id(100);
        self.send(match self.version {
            Old => MqttPacket::V3(v3::Packet::Subscribe {
                packet_id: packet,
                topic_filters: vec![(filter.into(), options.qos)],
            }),
            New => MqttPacket::V5(v5::Packet::Subscribe(v5::Subscribe {
                packet_id: packet,
                id: number.and_then(NonZeroU32::new),
                user_properties: vec![],
                topic_filters: vec![(filter.into(), options)],
            })),
        })
        .await;
        match self.get().await {
            Got::SubAck(100, reasons) if reasons.len() == 1 => reasons[0],
            other => panic!("no SUBACK, but {other:?}"),
        }
    }

    pub async fn unsubscribe(&mut self, filter: &str) -> Vec<u8> {
        self.send(match self.version {
            Old => MqttPacket::V3(v3::Packet::Unsubscribe { packet_id: id(101), topic_filters: vec![filter.into()] }),
            New => MqttPacket::V5(v5::Packet::Unsubscribe(v5::Unsubscribe {
                packet_id: id(101),
                user_properties: vec![],
                topic_filters: vec![filter.into()],
            })),
        })
        .await;
        match self.get().await {
            Got::UnsubAck(101, reasons) => reasons,
            other => panic!("no UNSUBACK, but {other:?}"),
        }
    }

    /// Says farewell, and waits for the end.
    pub async fn bye(mut self) {
        self.raw(&[0xe0, 0]).await;
        while self.get().await != Got::End {}
    }

    /// Goes without a word. The broker has noticed when this returns only as far as TCP has.
    pub async fn drop_dead(mut self) {
        let _ = self.io.shutdown().await;
        while self.get().await != Got::End {}
    }
}

pub fn message(topic: &str, payload: &[u8], level: u8, packet: u16) -> Publish {
    Publish {
        dup: false,
        retain: false,
        qos: qos(level),
        topic: topic.into(),
        packet_id: NonZeroU16::new(packet),
        payload: Bytes::copy_from_slice(payload),
        properties: None,
    }
}

/// A message with properties, for 5.0.
pub fn with(publish: Publish, properties: PublishProperties) -> Publish {
    Publish { properties: Some(properties), ..publish }
}

pub fn options(level: u8) -> SubscriptionOptions {
    SubscriptionOptions {
        qos: qos(level),
        retain_handling: RetainHandling::AtSubscribe,
        ..SubscriptionOptions::default()
    }
}

fn got(packet: MqttPacket) -> Got {
    match packet {
        MqttPacket::V3(packet) => match packet {
            v3::Packet::ConnectAck(ack) => Got::ConnAck(ack.session_present, ack.return_code.into(), None),
            v3::Packet::Publish(publish) => Got::Message(publish),
            v3::Packet::PublishAck { packet_id } => Got::PubAck(packet_id.get(), 0),
            v3::Packet::PublishReceived { packet_id } => Got::PubRec(packet_id.get(), 0),
            v3::Packet::PublishRelease { packet_id } => Got::PubRel(packet_id.get(), 0),
            v3::Packet::PublishComplete { packet_id } => Got::PubComp(packet_id.get(), 0),
            v3::Packet::SubscribeAck { packet_id, status } => {
                let code = |status: v3::SubscribeReturnCode| match status {
                    v3::SubscribeReturnCode::Success(qos) => qos.value(),
                    v3::SubscribeReturnCode::Failure => 0x80,
                };
                Got::SubAck(packet_id.get(), status.into_iter().map(code).collect())
            }
            v3::Packet::UnsubscribeAck { packet_id } => Got::UnsubAck(packet_id.get(), vec![]),
            v3::Packet::PingResponse => Got::Pong,
            other => panic!("a broker does not send {other:?}"),
        },
        MqttPacket::V5(packet) => match packet {
            v5::Packet::ConnectAck(ack) => Got::ConnAck(ack.session_present, ack.reason_code.into(), Some(ack)),
            v5::Packet::Publish(publish) => Got::Message(publish),
            v5::Packet::PublishAck(ack) => Got::PubAck(ack.packet_id.get(), ack.reason_code.into()),
            v5::Packet::PublishReceived(ack) => Got::PubRec(ack.packet_id.get(), ack.reason_code.into()),
            v5::Packet::PublishRelease(ack) => Got::PubRel(ack.packet_id.get(), ack.reason_code.into()),
            v5::Packet::PublishComplete(ack) => Got::PubComp(ack.packet_id.get(), ack.reason_code.into()),
            v5::Packet::SubscribeAck(ack) => {
                Got::SubAck(ack.packet_id.get(), ack.status.into_iter().map(Into::into).collect())
            }
            v5::Packet::UnsubscribeAck(ack) => {
                Got::UnsubAck(ack.packet_id.get(), ack.status.into_iter().map(Into::into).collect())
            }
            v5::Packet::PingResponse => Got::Pong,
            v5::Packet::Disconnect(farewell) => {
                assert_eq!(farewell.session_expiry_interval_secs, None, "only a client says that");
                Got::Farewell(farewell.reason_code.into())
            }
            other => panic!("a broker does not send {other:?}"),
        },
        MqttPacket::Version(_) => panic!("there is no such packet"),
    }
}
