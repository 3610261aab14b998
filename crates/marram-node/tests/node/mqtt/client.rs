//! A client of MQTT 5.0, as small as it can be: over TCP, TLS or WebSockets, to whichever broker.

use std::collections::VecDeque;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longer than anything that works takes.
const DEADLINE: Duration = Duration::from_secs(30);
const PACKET: u16 = 7;

const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const SUBACK: u8 = 0x90;

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection to a broker.
pub struct Client {
    io: Box<dyn Io>,
    /// Whether packets are in frames of RFC 6455.
    framed: bool,
    read: Vec<u8>,
    messages: VecDeque<(String, String)>,
}

impl Client {
    /// Connects to `127.0.0.1:1883`.
    pub async fn tcp(address: &str) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap(), false)
    }

    /// The same over TLS; the broker is `localhost`.
    pub async fn tls(address: &str, connector: &TlsConnector) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self::over(connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap(), false)
    }

    /// The same over WebSockets, as a page of `origin` does it; the status where that is refused.
    pub async fn websocket(address: &str, origin: Option<&str>) -> Result<Self, u16> {
        let origin = origin.map(|origin| format!("origin: {origin}\r\n")).unwrap_or_default();
        let request = format!(
            "GET /mqtt HTTP/1.1\r\nhost: {address}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-protocol: mqtt\r\n{origin}\r\n"
        );
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tokio::time::timeout(DEADLINE, stream.read_u8()).await.unwrap().unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        match head.split(' ').nth(1).unwrap().parse().unwrap() {
            101 => {
                // RFC 6455 §1.3 has this key, and what has to be made of it.
                assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
                Ok(Self::over(stream, true))
            }
            status => Err(status),
        }
    }

    fn over(io: impl Io + 'static, framed: bool) -> Self {
        Self { io: Box::new(io), framed, read: Vec::new(), messages: VecDeque::new() }
    }

    /// Connects as `client`: the reason of the answer, 0 if it is let in; nothing if there is no answer.
    pub async fn hello(&mut self, client: &str, user: Option<(&str, &str)>) -> Option<u8> {
        let flags = if user.is_some() { 0xc2 } else { 0x02 };
        let mut body = [&text("MQTT")[..], &[5, flags, 0, 0, 0], &text(client)].concat();
        if let Some((user, password)) = user {
            body.extend([text(user), text(password)].concat());
        }
        self.send(0x10, &body).await;
        Some(self.answer(CONNACK).await?[1])
    }

    /// Connects as `client`, with a will of QoS 1 that is published when the connection ends otherwise than by a goodbye.
    pub async fn hello_with_will(&mut self, client: &str, topic: &str, payload: &str) -> Option<u8> {
        let flags = 0x02 | 0x04 | 0x08;
        let head = [&text("MQTT")[..], &[5, flags, 0, 0, 0], &text(client)].concat();
        self.send(0x10, &[&head[..], &[0], &text(topic), &text(payload)].concat()).await;
        Some(self.answer(CONNACK).await?[1])
    }

    /// Subscribes: the reason of the answer.
    pub async fn subscribe(&mut self, filter: &str) -> u8 {
        let body = [&PACKET.to_be_bytes()[..], &[0], &text(filter), &[0]].concat();
        self.send(0x82, &body).await;
        *self.answer(SUBACK).await.expect("the broker answers").last().unwrap()
    }

    /// Publishes, and waits until that is acknowledged: the reason.
    pub async fn publish(&mut self, topic: &str, payload: &str) -> u8 {
        let body = [&text(topic)[..], &PACKET.to_be_bytes(), &[0], payload.as_bytes()].concat();
        self.send(0x32, &body).await;
        let answer = self.answer(PUBACK).await.expect("the broker answers");
        answer.get(2).copied().unwrap_or_default()
    }

    /// The next message: topic and payload.
    pub async fn message(&mut self) -> (String, String) {
        while self.messages.is_empty() {
            let (first, body) = self.packet().await.expect("the broker sends a message");
            self.keep(first, &body);
        }
        self.messages.pop_front().unwrap()
    }

    /// The next packet of this kind. Messages that come before it are kept.
    async fn answer(&mut self, kind: u8) -> Option<Vec<u8>> {
        loop {
            let (first, body) = self.packet().await?;
            if first == kind {
                return Some(body);
            }
            self.keep(first, &body);
        }
    }

    fn keep(&mut self, first: u8, body: &[u8]) {
        assert_eq!(first & 0xf0, PUBLISH, "nothing else is expected: {first:#x} {body:x?}");
        let (topic, mut rest) = body[2..].split_at(usize::from(u16::from_be_bytes([body[0], body[1]])));
        if first & 0x06 > 0 {
            rest = &rest[2..];
        }
        let (properties, used) = length(rest).unwrap();
        let of = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        self.messages.push_back((of(topic), of(&rest[used + properties..])));
    }

    async fn send(&mut self, first: u8, body: &[u8]) {
        let mut packet = vec![first];
        let mut left = body.len();
        loop {
            let more = left > 127;
            packet.push((left % 128) as u8 | if more { 0x80 } else { 0 });
            left /= 128;
            if !more {
                break;
            }
        }
        packet.extend(body);
        if self.framed {
            packet = frame(&packet);
        }
        // That the broker has gone shows in what it answers.
        let _ = self.io.write_all(&packet).await;
        let _ = self.io.flush().await;
    }

    /// The next packet: its first byte, and what follows its length. Nothing at the end.
    async fn packet(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((body, used)) = self.read.get(1..).and_then(length)
                && self.read.len() > used + body
            {
                let packet: Vec<_> = self.read.drain(..=used + body).collect();
                return Some((packet[0], packet[used + 1..].to_vec()));
            }
            let more = tokio::time::timeout(DEADLINE, self.fill()).await.expect("the broker says something");
            more?;
        }
    }

    /// Reads some bytes; nothing at the end.
    async fn fill(&mut self) -> Option<()> {
        if !self.framed {
            return matches!(self.io.read_buf(&mut self.read).await, Ok(1..)).then_some(());
        }
        let first = self.io.read_u8().await.ok()?;
        let length = match self.io.read_u8().await.ok()? {
            126 => usize::from(self.io.read_u16().await.ok()?),
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        self.io.read_exact(&mut payload).await.ok()?;
        // What is not binary is about the connection.
        if first & 0x0f == 2 {
            self.read.extend(payload);
        }
        Some(())
    }
}

fn text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

/// A binary frame, masked with zeros (RFC 6455 §5.2).
fn frame(payload: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let length = if payload.len() < 126 { vec![0x80 | low] } else { vec![0x80 | 126, high, low] };
    [&[0x82], &length[..], &[0; 4], payload].concat()
}

/// A number of variable length, and how many bytes it takes (MQTT 5.0 §1.5.5); nothing if there are not enough.
fn length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}
