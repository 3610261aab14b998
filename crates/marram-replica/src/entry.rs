//! The entry of a key: what `set` and `delete` wrote last, and what grew on top of it since.
//!
//! The register begins an *age* of the entry. Within one age increments, members and fields from everywhere come
//! together; a later `set` or `delete` begins a new age, and the older one is forgotten whole, with what others did to it
//! meanwhile. (A lexicographic pair: a chain first, and within each of its elements a lattice.) So a counter is a base, or
//! nothing, and a PN-counter on it, and increments made everywhere since the last `set` all count.
//!
//! An age that expires ends by itself, everywhere in the same way: the *lapsed* age follows directly after it and before
//! any later write, and begins with nothing. Changes do not look at the time: who makes one calls [`Entry::lapse`] first.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{CounterError, NodeId, OrMap, OrSet, PnCounter, Register, Stamp};

/// What grows within an age. Two kinds at once, begun on two nodes that did not know of each other, are settled by the
/// order of this list: the later one stays.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Part {
    /// Nothing yet.
    #[default]
    None,
    /// Increments.
    Counter(PnCounter),
    /// Members.
    Set(OrSet),
    /// Fields.
    Map(OrMap),
}

impl Part {
    const fn rank(&self) -> u8 {
        match self {
            Self::None => 0,
            Self::Counter(_) => 1,
            Self::Set(_) => 2,
            Self::Map(_) => 3,
        }
    }

    fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Counter(ours), Self::Counter(theirs)) => ours.merge(theirs),
            (Self::Set(ours), Self::Set(theirs)) => ours.merge(theirs),
            (Self::Map(ours), Self::Map(theirs)) => ours.merge(theirs),
            (ours, theirs) if theirs.rank() > ours.rank() => *self = theirs.clone(),
            _ => {}
        }
    }
}

/// What an entry is to those who read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape<'a> {
    /// Bytes.
    Value(&'a Bytes),
    /// A number: a value that was incremented, or increments alone.
    Counter(i64),
    /// A set.
    Set(&'a OrSet),
    /// A map.
    Map(&'a OrMap),
}

impl Shape<'_> {
    /// What to call it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Value(_) => "a value",
            Self::Counter(_) => "a counter",
            Self::Set(_) => "a set",
            Self::Map(_) => "a map",
        }
    }
}

/// Why an entry was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// It holds something else.
    #[error("it holds {found}, not {wanted}")]
    OtherShape {
        /// What it holds.
        found: &'static str,
        /// What the change is for.
        wanted: &'static str,
    },
    /// The value is not a number.
    #[error("its value is not a whole number of 64 bits in decimal")]
    NotANumber,
    /// The sum would not fit.
    #[error(transparent)]
    Counter(#[from] CounterError),
}

/// The entry of one key on one node.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Entry {
    register: Register,
    lapsed: bool,
    updated: Stamp,
    part: Part,
}

impl Entry {
    /// Which write was the latest.
    #[must_use]
    pub fn version(&self) -> Stamp {
        self.updated.max(self.register.stamp)
    }

    /// When it goes away by itself; nanoseconds since the Unix epoch.
    #[must_use]
    pub fn expires_unix_ns(&self) -> Option<u64> {
        self.register.expires_unix_ns
    }

    /// What is there at a time: `None` when nothing was written, the latest write was a removal, or it has expired.
    #[must_use]
    pub fn shape(&self, now_unix_ns: u64) -> Option<Shape<'_>> {
        self.content().filter(|_| !self.register.expired(now_unix_ns))
    }

    /// What is there until it expires, whatever the time is.
    #[must_use]
    pub fn content(&self) -> Option<Shape<'_>> {
        let value = self.register.value.as_ref();
        match &self.part {
            Part::None => value.map(Shape::Value),
            Part::Counter(counter) => Some(Shape::Counter(counter.value_over(value.and_then(number).unwrap_or(0)))),
            Part::Set(set) => Some(Shape::Set(set)),
            Part::Map(map) => Some(Shape::Map(map)),
        }
    }

    /// Whether this is a plain value: what a `set` wrote, and nothing since. Its bytes, then.
    #[must_use]
    pub fn plain(&self) -> Option<&Bytes> {
        self.register.value.as_ref().filter(|_| self.part == Part::None && self.updated == self.register.stamp)
    }

    /// The entry that [`Entry::plain`] described.
    #[must_use]
    pub const fn of_plain(stamp: Stamp, value: Bytes, expires_unix_ns: Option<u64>) -> Self {
        let register = Register { stamp, value: Some(value), expires_unix_ns };
        Self { register, lapsed: false, updated: stamp, part: Part::None }
    }

    /// Writes a value, or removes the entry. Returns the delta. `stamp` is later than the entry's version.
    pub fn set(&mut self, stamp: Stamp, value: Option<Bytes>, expires_unix_ns: Option<u64>) -> Self {
        let register = Register { stamp, value, expires_unix_ns };
        let delta = Self { register, lapsed: false, updated: stamp, part: Part::None };
        self.merge(&delta);
        delta
    }

    /// Ends an age whose time is over, and says whether that was so.
    pub fn lapse(&mut self, now_unix_ns: u64) -> bool {
        let over = self.register.expired(now_unix_ns);
        if over {
            let stamp = self.register.stamp;
            let register = Register { stamp, value: None, expires_unix_ns: None };
            *self = Self { register, lapsed: true, updated: stamp, part: Part::None };
        }
        over
    }

    /// The number that an increment adds to: 0 where nothing is.
    pub fn number(&self) -> Result<i64, EntryError> {
        match self.content() {
            None => Ok(0),
            Some(Shape::Counter(sum)) => Ok(sum),
            Some(Shape::Value(value)) => number(value).ok_or(EntryError::NotANumber),
            Some(other) => Err(EntryError::OtherShape { found: other.name(), wanted: "a number" }),
        }
    }

    /// Adds to the number. Returns the delta.
    pub fn increment(&mut self, stamp: Stamp, delta: i64) -> Result<Self, EntryError> {
        let base = match &self.register.value {
            Some(value) => number(value).ok_or(EntryError::NotANumber)?,
            None => 0,
        };
        let part = match &mut self.part {
            Part::Counter(counter) => counter.add(stamp.node, base, delta)?,
            Part::None => {
                let mut counter = PnCounter::default();
                let part = counter.add(stamp.node, base, delta)?;
                self.part = Part::Counter(counter);
                part
            }
            Part::Set(_) => return Err(EntryError::OtherShape { found: "a set", wanted: "a number" }),
            Part::Map(_) => return Err(EntryError::OtherShape { found: "a map", wanted: "a number" }),
        };
        Ok(self.grown(stamp, Part::Counter(part)))
    }

    /// Changes the set, which begins empty. Returns the delta.
    pub fn change_set(
        &mut self,
        stamp: Stamp,
        change: impl FnOnce(&mut OrSet, NodeId) -> OrSet,
    ) -> Result<Self, EntryError> {
        self.begin("a set", Part::Set(OrSet::default()))?;
        let Part::Set(set) = &mut self.part else { unreachable!("a part that is not a set was refused") };
        let delta = change(set, stamp.node);
        Ok(self.grown(stamp, Part::Set(delta)))
    }

    /// Changes the map, which begins empty. Returns the delta; `change` may refuse, and then has changed nothing.
    pub fn change_map<E: From<EntryError>>(
        &mut self,
        stamp: Stamp,
        change: impl FnOnce(&mut OrMap, NodeId) -> Result<OrMap, E>,
    ) -> Result<Self, E> {
        let new = self.part == Part::None;
        self.begin("a map", Part::Map(OrMap::default()))?;
        let Part::Map(map) = &mut self.part else { unreachable!("a part that is not a map was refused") };
        match change(map, stamp.node) {
            Ok(delta) => Ok(self.grown(stamp, Part::Map(delta))),
            Err(error) => {
                if new {
                    self.part = Part::None;
                }
                Err(error)
            }
        }
    }

    /// The join: the later age, and within one age what has grown on both sides.
    pub fn merge(&mut self, other: &Self) {
        let age = |entry: &'_ Self| (entry.register.stamp, entry.lapsed);
        match age(other).cmp(&age(self)).then_with(|| other.register.cmp(&self.register)) {
            std::cmp::Ordering::Greater => self.clone_from(other),
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => {
                self.updated = self.updated.max(other.updated);
                self.part.merge(&other.part);
            }
        }
    }

    /// Begins a part of the kind of `empty` where nothing is; refuses another kind.
    fn begin(&mut self, wanted: &'static str, empty: Part) -> Result<(), EntryError> {
        let found = match &self.part {
            Part::None if self.register.value.is_some() => "a value",
            Part::None => {
                self.part = empty;
                return Ok(());
            }
            part if part.rank() == empty.rank() => return Ok(()),
            Part::Counter(_) => "a counter",
            Part::Set(_) => "a set",
            Part::Map(_) => "a map",
        };
        Err(EntryError::OtherShape { found, wanted })
    }

    /// Notes the write, and makes the delta that carries `part`.
    fn grown(&mut self, stamp: Stamp, part: Part) -> Self {
        self.updated = self.updated.max(stamp);
        Self { register: self.register.clone(), lapsed: self.lapsed, updated: stamp, part }
    }
}

/// The number that a value is in decimal.
fn number(value: &Bytes) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Time;

    fn stamp(time: u64, node: u64) -> Stamp {
        Stamp { time: Time::from_bits(time), node: NodeId(node) }
    }

    fn value(text: &'static str) -> Option<Bytes> {
        Some(Bytes::from_static(text.as_bytes()))
    }

    fn add(member: &'static str) -> impl FnOnce(&mut OrSet, NodeId) -> OrSet {
        move |set, node| set.add(node, Bytes::from_static(member.as_bytes()))
    }

    #[test]
    fn increments_from_everywhere_count_on_what_was_set() {
        let mut a = Entry::default();
        a.set(stamp(1, 1), value("5"), None);
        let mut b = a.clone();
        a.increment(stamp(2, 1), 10).unwrap();
        b.increment(stamp(2, 2), -1).unwrap();
        a.merge(&b);
        assert_eq!((a.shape(0), a.version()), (Some(Shape::Counter(14)), stamp(2, 2)));
        // The next set forgets them, whenever those of others arrive.
        a.set(stamp(3, 1), value("0"), None);
        a.merge(&b);
        assert_eq!(a.shape(0), Some(Shape::Value(&Bytes::from_static(b"0"))));
    }

    #[test]
    fn what_has_expired_begins_again_in_the_same_way_everywhere() {
        let mut a = Entry::default();
        a.set(stamp(1, 1), value("5"), Some(100));
        let mut b = a.clone();
        a.increment(stamp(2, 1), 1).unwrap();
        assert_eq!((a.shape(99), a.shape(100)), (Some(Shape::Counter(6)), None));
        assert!(!a.lapse(99) && a.lapse(100) && !a.lapse(101) && b.lapse(100));
        assert_eq!((a.shape(0), a.version(), a.expires_unix_ns()), (None, stamp(1, 1), None));
        // Neither the value nor what was added to it is still there, and both nodes count on from nothing.
        a.increment(stamp(3, 1), 2).unwrap();
        b.increment(stamp(3, 2), 3).unwrap();
        b.merge(&a);
        assert_eq!(b.shape(200), Some(Shape::Counter(5)));
    }

    #[test]
    fn one_kind_at_a_time() {
        let check = |mut entry: Entry, found: &'static str| {
            let before = entry.clone();
            let set = entry.change_set(stamp(9, 1), add("x")).unwrap_err();
            assert_eq!(set, EntryError::OtherShape { found, wanted: "a set" });
            assert_eq!(entry, before);
        };
        let mut entry = Entry::default();
        assert_eq!(entry.shape(0), None);
        entry.increment(stamp(1, 1), 7).unwrap();
        assert_eq!(entry.number(), Ok(7));
        check(entry.clone(), "a counter");
        entry.set(stamp(2, 1), value("x"), None);
        assert_eq!(entry.number(), Err(EntryError::NotANumber));
        assert_eq!(entry.increment(stamp(3, 1), 1), Err(EntryError::NotANumber));
        check(entry.clone(), "a value");
        // A removed entry can become anything.
        entry.set(stamp(4, 1), None, None);
        assert_eq!(entry.number(), Ok(0));
        let mut set = entry.clone();
        set.change_set(stamp(5, 1), add("x")).unwrap();
        assert_eq!(set.increment(stamp(6, 1), 1).unwrap_err().to_string(), "it holds a set, not a number");
        // Begun as two kinds at once: the same one stays on both sides.
        let mut counter = entry;
        counter.increment(stamp(5, 2), 1).unwrap();
        let (mut left, mut right) = (set.clone(), counter.clone());
        left.merge(&counter);
        right.merge(&set);
        assert_eq!(left, right);
        assert!(matches!(left.shape(0), Some(Shape::Set(_))));
    }

    #[test]
    fn a_refused_change_of_a_map_leaves_nothing() {
        let mut entry = Entry::default();
        let refused = entry.change_map(stamp(1, 1), |_, _| Err::<OrMap, _>(EntryError::NotANumber));
        assert_eq!((refused, entry), (Err(EntryError::NotANumber), Entry::default()));
    }
}
