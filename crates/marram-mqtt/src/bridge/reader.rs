//! What one end of a bridge hears from its broker.

use std::io;
use std::num::NonZeroU16;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use rmqtt_codec::types::Publish;
use rmqtt_codec::{MqttPacket, v3, v5};
use tokio::io::{AsyncReadExt as _, ReadHalf};
use tokio_util::codec::Decoder as _;

use super::end::{EndError, codec};
use crate::connection::Io;
use crate::wire::{self, Frame, Reason, Version};

/// What comes from the broker after its CONNACK.
pub(crate) enum Got {
    Message(Box<Publish>),
    /// A message that cannot be carried, of which nothing but its identifier was kept; and why not.
    Unfit(Option<NonZeroU16>, String),
    /// An acknowledgement of a message of ours, with its reason.
    Acknowledged(NonZeroU16, Reason),
    Other,
}

/// What was read.
enum Read {
    Packet(MqttPacket),
    /// A message that was passed over, and why.
    Unfit(Option<NonZeroU16>, String),
}

/// The half that reads.
pub(crate) struct Reader {
    pub(super) packet_bytes_max: u32,
    pub(super) io: ReadHalf<Box<dyn Io>>,
    pub(super) version: Version,
    pub(super) buffer: BytesMut,
    /// The broker is given up when no byte comes for so long while the bridge reads.
    pub(super) silence_max: Duration,
}

impl Reader {
    /// The next packet, whatever it is.
    pub(super) async fn packet(&mut self) -> Result<MqttPacket, EndError> {
        match self.read().await? {
            Read::Packet(packet) => Ok(packet),
            Read::Unfit(..) => Err(EndError::Protocol("a message comes before the CONNACK".into())),
        }
    }

    async fn read(&mut self) -> Result<Read, EndError> {
        loop {
            let frame = wire::frame(&self.buffer, u32::MAX).map_err(|fault| EndError::Protocol(fault.why.into()))?;
            if let Some(frame) = frame
                && frame.total > self.packet_bytes_max as usize
            {
                let packet = self.pass_over(frame).await?;
                return Ok(Read::Unfit(packet, "it is larger than a bridge carries".into()));
            }
            match frame {
                Some(frame) if frame.total <= self.buffer.len() => return self.take(frame),
                _ => self.more().await?,
            }
        }
    }

    /// Takes the packet of `frame`, which is there in full. A message that the codec refuses, such as one whose time is
    /// over (an expiry of 0), is passed over: if it ended the connection, it would come again, for ever.
    fn take(&mut self, frame: Frame) -> Result<Read, EndError> {
        let mut bytes = self.buffer.split_to(frame.total);
        let unfit = if is_message(&bytes) { identifier(&bytes, frame) } else { None };
        match (codec(self.version).decode(&mut bytes), unfit) {
            (Ok(Some((packet, _))), _) => Ok(Read::Packet(packet)),
            (Err(error), Some(packet)) => Ok(Read::Unfit(packet, format!("it is malformed, or has expired: {error}"))),
            (Err(error), None) => Err(EndError::Protocol(error.to_string())),
            (Ok(None), _) => Err(EndError::Protocol("a packet ends early".into())),
        }
    }

    async fn more(&mut self) -> Result<(), EndError> {
        let read = self.io.read_buf(&mut self.buffer);
        match tokio::time::timeout(self.silence_max, read).await.map_err(|_| EndError::Silent)?? {
            0 => Err(EndError::Io(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }

    /// Reads a message to its end and keeps nothing of it: if it ended the connection, it would come again, for ever.
    async fn pass_over(&mut self, frame: Frame) -> Result<Option<NonZeroU16>, EndError> {
        if !is_message(&self.buffer) {
            return Err(EndError::Protocol("a packet that is no message is larger than the limit".into()));
        }
        // The topic, with its length before it, and the identifier.
        while self.buffer.len() < frame.header + 2 {
            self.more().await?;
        }
        let topic = usize::from(u16::from_be_bytes([self.buffer[frame.header], self.buffer[frame.header + 1]]));
        let at = frame.header + 2 + topic;
        if at + 2 > frame.total {
            return Err(EndError::Protocol("a topic is longer than its packet".into()));
        }
        while self.buffer.len() < at + 2 {
            self.more().await?;
        }
        let packet = identifier(&self.buffer, frame).flatten();
        let mut left = frame.total;
        loop {
            let here = left.min(self.buffer.len());
            self.buffer.advance(here);
            left -= here;
            if left == 0 {
                return Ok(packet);
            }
            self.more().await?;
        }
    }

    /// The next thing that matters to a bridge.
    pub(crate) async fn next(&mut self) -> Result<Got, EndError> {
        let packet = match self.read().await? {
            Read::Unfit(packet, why) => return Ok(Got::Unfit(packet, why)),
            Read::Packet(packet) => packet,
        };
        Ok(match packet {
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

fn is_message(packet: &[u8]) -> bool {
    packet[0] >> 4 == 3
}

/// The identifier of a message, or that it has none; `None` when its topic is longer than what is there.
fn identifier(packet: &[u8], frame: Frame) -> Option<Option<NonZeroU16>> {
    let (length, rest) = packet.get(frame.header..)?.split_first_chunk()?;
    let rest = rest.get(usize::from(u16::from_be_bytes(*length))..)?;
    if packet[0] & 0b0110 == 0 {
        return Some(None);
    }
    rest.first_chunk().map(|identifier| NonZeroU16::new(u16::from_be_bytes(*identifier)))
}

pub(super) fn unexpected(packet: &MqttPacket) -> EndError {
    let kind = match packet {
        MqttPacket::V3(packet) => packet.packet_type(),
        MqttPacket::V5(packet) => packet.packet_type(),
        MqttPacket::Version(_) => 0,
    };
    EndError::Protocol(format!("a packet of type {} is not expected here", kind >> 4))
}
