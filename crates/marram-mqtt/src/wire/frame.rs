//! Where a packet ends, before any of it is looked at.

use super::Fault;
use super::Reason;

/// The first packet in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Bytes before what the length counts: 2 to 5.
    pub(crate) header: usize,
    /// Bytes of the whole packet.
    pub(crate) total: usize,
}

/// The first packet in `bytes`, there in full or not; `None` until its length is known. A packet of more than `max` bytes is
/// refused as soon as that is said, before a byte of it is kept.
pub(crate) fn frame(bytes: &[u8], max: u32) -> Result<Option<Frame>, Fault> {
    let mut length = 0_usize;
    for at in 1..=4 {
        let Some(byte) = bytes.get(at) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            if at > 1 && *byte == 0 {
                return Err(Fault::malformed("the remaining length has more bytes than it needs"));
            }
            let total = at + 1 + length;
            if total > max as usize {
                return Err(Fault::new(Reason::TOO_LARGE, "the packet is larger than the limit"));
            }
            return Ok(Some(Frame { header: at + 1, total }));
        }
    }
    Err(Fault::malformed("the remaining length has more than 4 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_and_limited_before_the_rest_is_there() {
        assert_eq!(frame(&[0xc0], 100), Ok(None));
        assert_eq!(frame(&[0xc0, 0], 100), Ok(Some(Frame { header: 2, total: 2 })));
        assert_eq!(frame(&[0x30, 0x80], 1000), Ok(None));
        assert_eq!(frame(&[0x30, 0x80, 0x01], 1000), Ok(Some(Frame { header: 3, total: 131 })));
        assert_eq!(frame(&[0x30, 0xff, 0xff, 0xff, 0x7f], u32::MAX).unwrap().unwrap().total, 268_435_460);
        for (bad, reason) in [
            (&[0x30, 0xff, 0xff, 0xff, 0x7f][..], Reason::TOO_LARGE),
            (&[0x30, 0x80, 0x00], Reason::MALFORMED),
            (&[0x30, 0xff, 0xff, 0xff, 0xff], Reason::MALFORMED),
            (&[0x30, 0xff, 0xff, 0xff, 0x80, 0x01], Reason::MALFORMED),
        ] {
            assert_eq!(frame(bad, 1 << 20).unwrap_err().reason, reason, "{bad:x?}");
        }
    }
}
