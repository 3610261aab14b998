//! What one end of a bridge hears from its broker.

use std::io;
use std::num::NonZeroU16;

use bytes::{Buf as _, BytesMut};
use rmqtt_codec::types::Publish;
use rmqtt_codec::{MqttCodec, MqttPacket, v3, v5};
use tokio::io::{AsyncReadExt as _, ReadHalf};
use tokio_util::codec::Decoder as _;

use super::end::EndError;
use crate::connection::Io;
use crate::wire::{self, Frame, Reason};

/// What comes from the broker after its CONNACK.
pub(crate) enum Got {
    Message(Box<Publish>),
    /// A message that is too large, of which nothing but its identifier was kept.
    TooLarge(Option<NonZeroU16>),
    /// An acknowledgement of a message of ours, with its reason.
    Acknowledged(NonZeroU16, Reason),
    Other,
}

/// What was read.
enum Read {
    Packet(MqttPacket),
    /// A message that was passed over.
    TooLarge(Option<NonZeroU16>),
}

/// The half that reads.
pub(crate) struct Reader {
    pub(super) packet_bytes_max: u32,
    pub(super) io: ReadHalf<Box<dyn Io>>,
    pub(super) codec: MqttCodec,
    pub(super) buffer: BytesMut,
}

impl Reader {
    /// The next packet, whatever it is.
    pub(super) async fn packet(&mut self) -> Result<MqttPacket, EndError> {
        match self.read().await? {
            Read::Packet(packet) => Ok(packet),
            Read::TooLarge(_) => Err(EndError::Protocol("a message comes before the CONNACK".into())),
        }
    }

    async fn read(&mut self) -> Result<Read, EndError> {
        loop {
            let frame = wire::frame(&self.buffer, u32::MAX).map_err(|fault| EndError::Protocol(fault.why.into()))?;
            if let Some(frame) = frame
                && frame.total > self.packet_bytes_max as usize
            {
                return self.pass_over(frame).await.map(Read::TooLarge);
            }
            if frame.is_some_and(|frame| frame.total <= self.buffer.len()) {
                let packet = self.codec.decode(&mut self.buffer);
                let packet = packet.map_err(|error| EndError::Protocol(error.to_string()))?;
                if let Some((packet, _)) = packet {
                    return Ok(Read::Packet(packet));
                }
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<(), EndError> {
        match self.io.read_buf(&mut self.buffer).await? {
            0 => Err(EndError::Io(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }

    /// Reads a message to its end and keeps nothing of it: if it ended the connection, it would come again, for ever.
    async fn pass_over(&mut self, frame: Frame) -> Result<Option<NonZeroU16>, EndError> {
        let first = self.buffer[0];
        if first >> 4 != 3 {
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
        let packet = u16::from_be_bytes([self.buffer[at], self.buffer[at + 1]]);
        let mut left = frame.total;
        loop {
            let here = left.min(self.buffer.len());
            self.buffer.advance(here);
            left -= here;
            if left == 0 {
                return Ok(NonZeroU16::new(packet).filter(|_| first & 0b0110 != 0));
            }
            self.more().await?;
        }
    }

    /// The next thing that matters to a bridge.
    pub(crate) async fn next(&mut self) -> Result<Got, EndError> {
        let packet = match self.read().await? {
            Read::TooLarge(packet) => return Ok(Got::TooLarge(packet)),
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

pub(super) fn unexpected(packet: &MqttPacket) -> EndError {
    let kind = match packet {
        MqttPacket::V3(packet) => packet.packet_type(),
        MqttPacket::V5(packet) => packet.packet_type(),
        MqttPacket::Version(_) => 0,
    };
    EndError::Protocol(format!("a packet of type {} is not expected here", kind >> 4))
}
