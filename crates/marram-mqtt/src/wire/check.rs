//! What the codec crate lets pass, looked for in the bytes of a whole packet.

use super::{Fault, Version};

/// Reads on in a packet; says `None` past its end.
struct Cursor<'p>(&'p [u8]);

impl<'p> Cursor<'p> {
    fn skip(&mut self, bytes: usize) -> Option<&'p [u8]> {
        let (head, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.skip(1).map(|bytes| bytes[0])
    }

    /// A field with its length in two bytes before it.
    fn field(&mut self) -> Option<&'p [u8]> {
        let length = self.skip(2)?;
        self.skip(usize::from(u16::from_be_bytes([length[0], length[1]])))
    }

    /// The section of properties, whose length may have up to four bytes.
    fn properties(&mut self) -> Result<Option<&'p [u8]>, Fault> {
        let mut length = 0;
        for at in 0..4 {
            let Some(byte) = self.byte() else { return Ok(None) };
            length |= usize::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                if at > 0 && byte == 0 {
                    return Err(Fault::malformed("the length of the properties has more bytes than it needs"));
                }
                return Ok(self.skip(length));
            }
        }
        Ok(None)
    }
}

/// Checks a packet other than CONNECT: `first` is its first byte, `body` what follows the fixed header.
pub(super) fn packet(version: Version, first: u8, body: &[u8]) -> Result<(), Fault> {
    let kind = first >> 4;
    if kind == 3 && first & 0b1110 == 0b1000 {
        return Err(Fault::malformed("a PUBLISH of QoS 0 is marked as a duplicate"));
    }
    if (kind == 12 || (kind == 14 && !version.is_5())) && !body.is_empty() {
        return Err(Fault::malformed("the packet has bytes that its type does not have"));
    }
    if kind == 8 && !version.is_5() {
        return subscribe_3(body).unwrap_or(Ok(()));
    }
    let mut cursor = Cursor(body);
    if version.is_5() && (kind == 8 || kind == 10) && cursor.skip(2).is_some() {
        cursor.properties()?;
    }
    if version.is_5() && kind == 3 {
        let there = cursor.field().is_some() && (first & 0b0110 == 0 || cursor.skip(2).is_some());
        if there {
            cursor.properties()?;
        }
    }
    Ok(())
}

/// 3.1.1 §3.8.3: the upper six bits of each requested QoS are reserved. `None` when it ends early, which the codec says.
fn subscribe_3(body: &[u8]) -> Option<Result<(), Fault>> {
    let mut cursor = Cursor(body);
    cursor.skip(2)?;
    while !cursor.0.is_empty() {
        cursor.field()?;
        if cursor.byte()? > 2 {
            return Some(Err(Fault::malformed("reserved bits of a requested QoS are set")));
        }
    }
    Some(Ok(()))
}

/// Checks the flags of a CONNECT against each other, and that nothing follows its last field.
pub(super) fn connect(body: &[u8]) -> Result<(), Fault> {
    walk_connect(body).unwrap_or(Ok(()))
}

fn walk_connect(body: &[u8]) -> Option<Result<(), Fault>> {
    let mut cursor = Cursor(body);
    cursor.field()?;
    let level = cursor.byte()?;
    let flags = cursor.byte()?;
    let has = |bit: u8| flags & bit != 0;
    if !has(0x04) && flags & 0b0011_1000 != 0 {
        return Some(Err(Fault::malformed("the will has a QoS or is retained, and there is no will")));
    }
    if has(0x40) && !has(0x80) && level < 5 {
        return Some(Err(Fault::malformed("there is a password and no user name")));
    }
    cursor.skip(2)?;
    let properties = |cursor: &mut Cursor<'_>| if level == 5 { cursor.properties().map(|_| ()) } else { Ok(()) };
    if let Err(fault) = properties(&mut cursor) {
        return Some(Err(fault));
    }
    cursor.field()?;
    if has(0x04) {
        if let Err(fault) = properties(&mut cursor) {
            return Some(Err(fault));
        }
        cursor.field()?;
        cursor.field()?;
    }
    for bit in [0x80, 0x40] {
        if has(bit) {
            cursor.field()?;
        }
    }
    Some(if cursor.0.is_empty() { Ok(()) } else { Err(Fault::malformed("bytes follow the last field of the CONNECT")) })
}
