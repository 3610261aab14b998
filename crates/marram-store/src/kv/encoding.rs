//! The state of an entry on the disk: one byte of form, then the form's content.
//!
//! Forms that were released never change. The second one is the serde form of `marram_replica::Entry`, pinned by a test: a
//! change there that alters the bytes needs a third form here.

use bytes::Bytes;
use marram_replica::{Entry, Stamp};

use crate::StoreError;

/// A plain value: its bytes as they are. Version and expiry are in the columns.
const PLAIN: u8 = 1;
/// Anything else: postcard of the entry.
const ENTRY: u8 = 2;

pub(super) fn encode(entry: &Entry) -> Result<Vec<u8>, StoreError> {
    if let Some(value) = entry.plain() {
        let mut state = Vec::with_capacity(value.len() + 1);
        state.push(PLAIN);
        state.extend_from_slice(value);
        return Ok(state);
    }
    postcard::to_extend(entry, vec![ENTRY])
        .map_err(|error| StoreError::Invalid(format!("an entry cannot be encoded: {error}")))
}

/// The entry whose state this is; version and expiry are those of its columns.
pub(super) fn decode(version: Stamp, expires_unix_ns: Option<u64>, state: &[u8]) -> Result<Entry, StoreError> {
    match state.split_first() {
        Some((&PLAIN, value)) => Ok(Entry::of_plain(version, Bytes::copy_from_slice(value), expires_unix_ns)),
        Some((&ENTRY, rest)) => decode_entry(rest),
        _ => Err(StoreError::Damaged("an entry of a bucket has an unknown form".into())),
    }
}

/// The entry of a tombstone, which is never plain.
pub(super) fn decode_tombstone(state: &[u8]) -> Result<Entry, StoreError> {
    match state.split_first() {
        Some((&ENTRY, rest)) => decode_entry(rest),
        _ => Err(StoreError::Damaged("a removed entry of a bucket has an unknown form".into())),
    }
}

fn decode_entry(rest: &[u8]) -> Result<Entry, StoreError> {
    postcard::from_bytes(rest).map_err(|error| StoreError::Damaged(format!("an entry of a bucket: {error}")))
}

#[cfg(test)]
mod tests {
    use marram_replica::{NodeId, Register, Time};

    use super::*;

    fn stamp(time: u64) -> Stamp {
        Stamp { time: Time::from_bits(time), node: NodeId(9) }
    }

    /// What version 1 wrote is read for ever.
    #[test]
    fn the_bytes_are_what_they_were() {
        let check = |entry: &Entry, bytes: &[u8]| {
            assert_eq!(encode(entry).unwrap(), bytes);
            assert_eq!(&decode(entry.version(), entry.expires_unix_ns(), bytes).unwrap(), entry);
        };
        let mut entry = Entry::default();
        entry.set(stamp(1), Some(Bytes::from_static(b"40")), Some(300));
        check(&entry, b"\x0140");
        let mut counter = entry.clone();
        counter.increment(stamp(2), -2).unwrap();
        // Register (time, node, value, expiry), lapsed, updated, part, one node with what it added and took.
        check(&counter, b"\x02\x01\x09\x01\x0240\x01\xac\x02\x00\x02\x09\x01\x01\x09\x00\x02");
        entry.lapse(300);
        check(&entry, b"\x02\x01\x09\x00\x00\x01\x01\x09\x00");
        let mut set = Entry::default();
        set.change_set(stamp(3), |set, node| set.add(node, Bytes::from_static(b"m"))).unwrap();
        // Vector, cloud, dots.
        check(&set, b"\x02\x00\x00\x00\x00\x00\x03\x09\x02\x01\x09\x01\x00\x01\x09\x01\x01m");
        let mut map = Entry::default();
        let register = Register { stamp: stamp(4), value: Some(Bytes::from_static(b"v")), expires_unix_ns: None };
        map.change_map(stamp(4), |map, node| Ok::<_, marram_replica::EntryError>(map.put(node, "f", register)))
            .unwrap();
        check(&map, b"\x02\x00\x00\x00\x00\x00\x04\x09\x03\x01\x09\x01\x00\x01\x09\x01\x01f\x00\x04\x09\x01\x01v\x00");
    }

    #[test]
    fn other_bytes_are_damage_and_not_a_panic() {
        for bytes in [&b""[..], b"\x00", b"\x03abc", b"\x02", b"\x02\xff\xff\xff"] {
            assert!(matches!(decode(stamp(1), None, bytes), Err(StoreError::Damaged(_))), "{bytes:?}");
        }
        assert!(decode_tombstone(b"\x01x").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_decode_without_a_panic(bytes in proptest::collection::vec(0u8..16, 0..60)) {
            let _ = decode(stamp(1), None, &bytes);
        }
    }
}
