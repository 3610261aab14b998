//! From an entry to what readers, events and watches see of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use marram_core::port::crdt::{Collection, Field};
use marram_core::port::kv::Version;
use marram_replica::{Entry, Item, OrMap, Shape, Stamp};

use super::cache::{Cached, Content};
use crate::limits::KV_CACHED_BYTES_MAX;

pub(super) fn version(stamp: Stamp) -> Version {
    Version(stamp.to_bytes())
}

/// What readers see of an entry until its time is over. `state_bytes` is the size of its encoding.
pub(super) fn cached(entry: Option<&Entry>, state_bytes: usize) -> Cached {
    let Some(entry) = entry else { return absent(Stamp::default()) };
    // Whether its time is over is decided when it is read: a cached entry expires without anybody touching it.
    let content = match entry.content() {
        None => return absent(entry.version()),
        Some(Shape::Value(value)) => Content::Value(value.clone()),
        Some(Shape::Counter(sum)) => Content::Value(sum.to_string().into()),
        Some(Shape::Set(set)) => Content::Collection(Arc::new(Collection::Set(set.members()))),
        Some(Shape::Map(map)) => Content::Collection(Arc::new(Collection::Map(fields(map)))),
    };
    let bytes = memory_bytes(entry, state_bytes);
    Cached { version: entry.version(), expires_unix_ns: entry.expires_unix_ns(), content, bytes }
}

/// Whether the cache would keep [`cached`] of it.
pub(super) fn fits(entry: &Entry, state_bytes: usize) -> bool {
    memory_bytes(entry, state_bytes) <= KV_CACHED_BYTES_MAX
}

fn memory_bytes(entry: &Entry, state_bytes: usize) -> usize {
    // A collection is unpacked: each of its parts is an allocation and a node of a tree.
    if matches!(entry.content(), Some(Shape::Set(_) | Shape::Map(_))) { 4 * state_bytes } else { state_bytes }
}

fn absent(version: Stamp) -> Cached {
    Cached { version, expires_unix_ns: None, content: Content::Absent, bytes: 0 }
}

/// The whole map in one pass over what is in it.
fn fields(map: &OrMap) -> BTreeMap<String, Field> {
    let mut fields: BTreeMap<String, (Field, Option<Stamp>, i128)> = BTreeMap::new();
    for (_, (name, item)) in map.causal().iter() {
        let (field, put, sum) = fields.entry(name.clone()).or_default();
        match item {
            Item::Register(register) if Some(register.stamp) > *put => {
                (field.value, *put) = (register.value.clone(), Some(register.stamp));
            }
            Item::Register(_) => {}
            Item::Count(count) => {
                *sum += i128::from(*count);
                field.count = Some((*sum).clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64);
            }
            Item::Member(member) => _ = field.members.insert(member.clone()),
        }
    }
    fields.into_iter().map(|(name, (field, ..))| (name, field)).collect()
}

/// The bytes of a value or counter, as an event brings them.
pub(super) fn value(entry: &Entry) -> Option<Bytes> {
    match entry.content()? {
        Shape::Value(value) => Some(value.clone()),
        Shape::Counter(sum) => Some(sum.to_string().into()),
        Shape::Set(_) | Shape::Map(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use marram_replica::{NodeId, Register, Time};

    use super::*;

    /// What is shown of a map is what its own readers say, concurrent writes and all.
    #[test]
    fn fields_are_what_the_map_says() {
        let stamp = |time, node| Stamp { time: Time::from_bits(time), node: NodeId(node) };
        let put = |map: &mut OrMap, stamp: Stamp, value: &'static str| {
            let register = Register { stamp, value: Some(Bytes::from_static(value.as_bytes())), expires_unix_ns: None };
            map.put(stamp.node, "f", register);
        };
        let (mut map, mut other) = (OrMap::default(), OrMap::default());
        // The later write has the lesser dot.
        put(&mut map, stamp(9, 1), "later");
        put(&mut other, stamp(5, 2), "earlier");
        map.increment(NodeId(1), "n", 5).unwrap();
        other.increment(NodeId(2), "n", -7).unwrap();
        other.add(NodeId(2), "f", Bytes::from_static(b"m"));
        map.merge(&other);
        let fields = fields(&map);
        assert_eq!(fields.keys().map(String::as_str).collect::<BTreeSet<_>>(), map.fields());
        for (name, field) in &fields {
            assert_eq!(field.value.as_ref(), map.register(name).and_then(|register| register.value.as_ref()));
            assert_eq!(field.count, map.count(name));
            assert_eq!(field.members.iter().collect::<BTreeSet<_>>(), map.members(name));
        }
        assert_eq!(fields["f"].value, Some("later".into()));
        assert_eq!(fields["n"].count, Some(-2));
    }
}
