//! Retained messages: the last of each topic, for those who subscribe later.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use marram_core::port::mqtt::Message;

use super::session::{Owner, has_share};

/// All of them, in memory, by topic.
#[derive(Default)]
pub(super) struct Retained {
    by_topic: BTreeMap<Arc<str>, Kept>,
    /// What there is, and what is under way.
    all: Amount,
    by_owner: HashMap<Owner, Amount>,
    /// Messages that are to be retained and whose commits are not over, in their order: who publishes them, and what
    /// they take.
    under_way: VecDeque<(Owner, Amount)>,
}

struct Kept {
    message: Arc<Message>,
    owner: Owner,
}

/// So many messages, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) count: usize,
    pub(super) bytes: usize,
}

impl Kept {
    fn amount(&self) -> Amount {
        Amount { count: 1, bytes: self.message.size() }
    }
}

impl Retained {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.all.count
    }

    /// What there is more of it with `message`.
    fn growth(&self, message: &Message) -> Amount {
        let there = self.by_topic.get(&message.topic).map_or(Amount::default(), Kept::amount);
        Amount { count: 1 - there.count, bytes: message.size().saturating_sub(there.bytes) }
    }

    /// Whether `message` of `owner` can be retained within these limits. One that takes no more than the last of its
    /// topic can.
    pub(super) fn has_room(&self, message: &Message, owner: &Owner, max: Amount) -> bool {
        let (growth, all) = (self.growth(message), self.all);
        let own = self.by_owner.get(owner).copied().unwrap_or_default();
        (growth.count == 0 || has_share(own.count, all.count, growth.count, max.count))
            && (growth.bytes == 0 || has_share(own.bytes, all.bytes, growth.bytes, max.bytes))
    }

    /// A message is on its way here.
    pub(super) fn begin(&mut self, message: &Message, owner: Owner) {
        let growth = self.growth(message);
        self.hold(&owner, growth);
        self.under_way.push_back((owner, growth));
    }

    /// The first that was on its way is here, or could not be kept.
    pub(super) fn over(&mut self) -> Owner {
        let Some((owner, growth)) = self.under_way.pop_front() else { return Owner::Nobody };
        self.release(&owner, growth);
        owner
    }

    fn hold(&mut self, owner: &Owner, more: Amount) {
        self.all.count += more.count;
        self.all.bytes += more.bytes;
        if *owner != Owner::Nobody {
            let own = self.by_owner.entry(owner.clone()).or_default();
            own.count += more.count;
            own.bytes += more.bytes;
        }
    }

    fn release(&mut self, owner: &Owner, less: Amount) {
        self.all.count -= less.count;
        self.all.bytes -= less.bytes;
        let Some(own) = self.by_owner.get_mut(owner) else { return };
        own.count -= less.count;
        own.bytes -= less.bytes;
        if *own == Amount::default() {
            self.by_owner.remove(owner);
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Whether a topic has a message, or may have one by the time that what is prepared now is finished.
    pub(super) fn may_have(&self, topic: &str) -> bool {
        self.is_under_way() || self.by_topic.contains_key(topic)
    }

    /// The same of any topic.
    pub(super) fn may_have_any(&self) -> bool {
        self.is_under_way() || !self.by_topic.is_empty()
    }

    pub(super) fn set(&mut self, message: Arc<Message>, owner: Owner) {
        self.remove(&message.topic.clone());
        let kept = Kept { message, owner };
        self.hold(&kept.owner, kept.amount());
        self.by_topic.insert(kept.message.topic.clone(), kept);
    }

    pub(super) fn remove(&mut self, topic: &str) -> bool {
        let Some(old) = self.by_topic.remove(topic) else { return false };
        self.release(&old.owner, old.amount());
        true
    }

    /// The messages from the topic after `after` on that a filter may take: those with the same text before its first
    /// wildcard.
    pub(super) fn range<'r>(
        &'r self,
        filter: &str,
        after: Option<&Arc<str>>,
    ) -> impl Iterator<Item = &'r Arc<Message>> {
        let literal = filter.find(['+', '#']).map_or(filter, |at| &filter[..at]);
        // `a/#` takes `a` as well.
        let prefix = if filter[literal.len()..].starts_with('#') { literal.trim_end_matches('/') } else { literal };
        let prefix = prefix.to_owned();
        let from = match after {
            Some(after) if **after >= *prefix => Bound::Excluded(&**after),
            _ => Bound::Included(&*prefix),
        };
        let range = self.by_topic.range::<str, _>((from, Bound::Unbounded));
        range.map(|(_, kept)| &kept.message).take_while(move |message| message.topic.starts_with(&*prefix))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use marram_core::port::mqtt::Qos;
    use proptest::prelude::*;

    use super::*;
    use crate::topic;

    fn message(topic: &str, payload: usize) -> Arc<Message> {
        Arc::new(Message {
            topic: topic.into(),
            payload: Bytes::from(vec![0; payload]),
            qos: Qos::AtMostOnce,
            retain: true,
            publisher: "".into(),
            published_unix_ns: 0,
            expires_unix_ns: None,
            properties: None,
        })
    }

    proptest! {
        /// A range has everything that the filter takes, from wherever it begins.
        #[test]
        fn a_range_leaves_nothing_out(
            topics in prop::collection::btree_set("[ab/]{1,5}", 0..20), filter in "[ab+#/]{1,5}", after in "[ab/]{1,5}",
        ) {
            prop_assume!(topic::is_filter(&filter));
            let mut retained = Retained::default();
            topics.iter().for_each(|topic| retained.set(message(topic, 1), Owner::Nobody));
            for after in [None, Some(Arc::<str>::from(after))] {
                let got: Vec<_> = retained
                    .range(&filter, after.as_ref())
                    .map(|message| message.topic.to_string())
                    .filter(|topic| topic::matches(&filter, topic))
                    .collect();
                let plain: Vec<_> = topics
                    .iter()
                    .filter(|topic| after.as_deref().is_none_or(|after| topic.as_str() > after))
                    .filter(|topic| topic::matches(&filter, topic))
                    .cloned()
                    .collect();
                prop_assert_eq!(got, plain);
            }
        }
    }

    #[test]
    fn the_bytes_are_those_that_are_there() {
        let (mut retained, nobody) = (Retained::default(), Owner::Nobody);
        retained.set(message("a", 100), nobody.clone());
        retained.set(message("a", 10), nobody.clone());
        assert_eq!(retained.all, Amount { count: 1, bytes: message("a", 10).size() });
        let one = |bytes| Amount { count: 1, bytes };
        assert!(!retained.has_room(&message("b", 10), &nobody, one(1_000)));
        assert!(retained.has_room(&message("a", 10), &nobody, one(1_000)));
        assert!(retained.has_room(&message("a", 100), &nobody, one(message("a", 100).size())));
        assert!(!retained.has_room(&message("a", 101), &nobody, one(message("a", 100).size())));
        assert!(retained.remove("a") && !retained.remove("a"));
        assert_eq!(retained.all, Amount::default());
    }

    #[test]
    fn nobody_has_more_than_is_left() {
        let mut retained = Retained::default();
        let owner = |name: &str| Owner::User(name.into());
        let max = Amount { count: 8, bytes: 1_000 };
        let mut publish = |name: &str, topic: &str, payload: usize| {
            let message = message(topic, payload);
            let fits = retained.has_room(&message, &owner(name), max);
            if fits {
                retained.begin(&message, owner(name));
                let by = retained.over();
                retained.set(message, by);
            }
            fits
        };
        assert_eq!((0..8).filter(|n| publish("greedy", &format!("g/{n}"), 1)).count(), 4);
        assert!(publish("greedy", "g/0", 1), "what is there can be replaced");
        assert_eq!((0..8).filter(|n| publish("other", &format!("o/{n}"), 1)).count(), 2);
        assert!(publish("other", "g/1", 1), "a topic changes hands");
        assert!(!publish("third", "t", 900) && publish("third", "t", 300));
        for topic in ["g/0", "g/1", "g/2", "g/3", "o/0", "o/1", "t"] {
            assert!(retained.remove(topic), "{topic}");
        }
        assert!(retained.all == Amount::default() && retained.by_owner.is_empty());
    }

    #[test]
    fn what_is_under_way_counts() {
        let (mut retained, owner) = (Retained::default(), Owner::User("a".into()));
        let max = Amount { count: 2, bytes: 1_000 };
        retained.begin(&message("a", 1), owner.clone());
        assert!(!retained.has_room(&message("b", 1), &owner, max));
        assert_eq!(retained.over(), owner);
        assert!(retained.has_room(&message("b", 1), &owner, max) && retained.by_owner.is_empty());
    }
}
