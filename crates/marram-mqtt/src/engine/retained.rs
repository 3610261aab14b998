//! Retained messages: the last of each topic, for those who subscribe later.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use marram_core::port::mqtt::Message;

/// All of them, in memory, by topic.
#[derive(Default)]
pub(super) struct Retained {
    by_topic: BTreeMap<Arc<str>, Arc<Message>>,
    bytes: usize,
    /// Messages that are to be retained and whose commits are not over.
    under_way: usize,
}

impl Retained {
    pub(super) fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// Whether `message` can be retained within these limits.
    pub(super) fn has_room(&self, message: &Message, count_max: usize, bytes_max: usize) -> bool {
        let there = self.by_topic.get(&message.topic);
        let count = self.len() + usize::from(there.is_none());
        count <= count_max && self.bytes + message.size() - there.map_or(0, |there| there.size()) <= bytes_max
    }

    /// A message is on its way here.
    pub(super) fn begin(&mut self) {
        self.under_way += 1;
    }

    /// It is here, or could not be kept.
    pub(super) fn over(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way > 0
    }

    /// Whether a topic has a message, or may have one by the time that what is prepared now is finished.
    pub(super) fn may_have(&self, topic: &str) -> bool {
        self.is_under_way() || self.by_topic.contains_key(topic)
    }

    /// The same of any topic.
    pub(super) fn may_have_any(&self) -> bool {
        self.is_under_way() || !self.by_topic.is_empty()
    }

    pub(super) fn set(&mut self, message: Arc<Message>) {
        self.bytes += message.size();
        if let Some(old) = self.by_topic.insert(message.topic.clone(), message) {
            self.bytes -= old.size();
        }
    }

    pub(super) fn remove(&mut self, topic: &str) -> bool {
        let old = self.by_topic.remove(topic);
        self.bytes -= old.as_ref().map_or(0, |old| old.size());
        old.is_some()
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
        range.map(|(_, message)| message).take_while(move |message| message.topic.starts_with(&*prefix))
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
            topics.iter().for_each(|topic| retained.set(message(topic, 1)));
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
        let mut retained = Retained::default();
        retained.set(message("a", 100));
        retained.set(message("a", 10));
        assert_eq!(retained.bytes, message("a", 10).size());
        assert!(!retained.has_room(&message("b", 10), 1, 1_000) && retained.has_room(&message("a", 10), 1, 1_000));
        assert!(retained.has_room(&message("a", 100), 1, message("a", 100).size()));
        assert!(retained.remove("a") && !retained.remove("a"));
        assert_eq!((retained.bytes, retained.len()), (0, 0));
    }
}
