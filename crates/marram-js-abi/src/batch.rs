//! Messages one after the other in a buffer, so that each can be written when it arises and read without gathering.

use serde::{Deserialize, Serialize};
use std::marker::PhantomData;

use crate::Malformed;

/// One message as bytes of its own.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    push(&mut bytes, message);
    bytes
}

/// Reads a buffer that holds one message.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Malformed> {
    postcard::from_bytes(bytes)
}

/// Appends one message to a batch.
pub fn push<T: Serialize>(batch: &mut Vec<u8>, message: &T) {
    let written = postcard::to_extend(message, std::mem::take(batch));
    *batch = written.expect("a vector takes any length, and every message type has a known one");
}

/// Reads the messages of a batch in order.
pub struct Batch<'a, T> {
    rest: &'a [u8],
    message: PhantomData<T>,
}

impl<'a, T> Batch<'a, T> {
    /// The messages in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, message: PhantomData }
    }
}

impl<'a, T: Deserialize<'a>> Iterator for Batch<'a, T> {
    type Item = Result<T, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match postcard::take_from_bytes(self.rest) {
            Ok((message, rest)) => {
                self.rest = rest;
                Some(Ok(message))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, Source};

    #[test]
    fn a_batch_reads_back_in_order() {
        let events = [
            Event::Timer { op: 7 },
            Event::Chunk { of: Source::Fetch(3), bytes: b"abc" },
            Event::Cancel { request: 1 },
        ];
        let mut bytes = Vec::new();
        events.iter().for_each(|event| push(&mut bytes, event));
        let read: Result<Vec<Event<'_>>, _> = Batch::new(&bytes).collect();
        assert_eq!(read.unwrap(), events);
    }

    #[test]
    fn a_cut_batch_is_an_error_and_ends() {
        let bytes = encode(&Event::Chunk { of: Source::Request(1), bytes: b"abcdef" });
        let mut batch = Batch::<Event<'_>>::new(&bytes[..bytes.len() - 1]);
        assert!(batch.next().unwrap().is_err());
        assert!(batch.next().is_none());
    }
}
