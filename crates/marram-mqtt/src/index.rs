//! Which subscriptions take a topic: a tree of levels.
//!
//! A match visits the nodes that the topic leads to and nothing else. It allocates nothing: what it finds goes to the
//! caller one by one.

use std::collections::HashMap;
use std::sync::Arc;

use marram_core::port::mqtt::Qos;

use crate::topic::Filter;

/// Children of a node are looked up one by one until there are more than this.
const FEW: usize = 8;

/// What a subscription asks for, in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taker<K> {
    /// Whose.
    pub(crate) session: K,
    /// What was granted.
    pub(crate) qos: Qos,
    /// The queue of the session is in the journal.
    pub(crate) lasts: bool,
    /// Not what the session itself has published.
    pub(crate) no_local: bool,
    /// The retain flag stays as it was published.
    pub(crate) retain_as_published: bool,
    /// The client's number for it; 0 for none.
    pub(crate) id: u32,
}

/// What a match finds.
pub(crate) enum Found<'i, K> {
    /// A subscription of its own.
    One(&'i Taker<K>),
    /// A group: one of them gets the message.
    Group(&'i mut Group<K>),
}

/// The subscriptions of all sessions.
#[derive(Debug)]
pub(crate) struct Index<K> {
    nodes: Vec<Node<K>>,
    free: Vec<u32>,
    filters: usize,
}

#[derive(Debug)]
struct Node<K> {
    children: Children,
    /// `+`; 0 is the root, which is nobody's child.
    any: u32,
    here: Takers<K>,
    /// Those that end in `#` below this node.
    below: Takers<K>,
    /// Children of both kinds and takers: at none the node goes.
    used: u32,
}

#[derive(Debug)]
struct Takers<K> {
    own: Vec<Taker<K>>,
    groups: Vec<Group<K>>,
}

/// Those who share a subscription.
#[derive(Debug)]
pub(crate) struct Group<K> {
    name: Box<str>,
    /// The filter as each of them subscribed to it.
    pub(crate) filter: Arc<str>,
    /// At least one.
    pub(crate) takers: Vec<Taker<K>>,
    /// One of them would get a message of QoS 1 or 2 after a start of the node as well.
    pub(crate) lasting: bool,
    /// Where the next search begins.
    pub(crate) next: usize,
}

#[derive(Debug)]
enum Children {
    Few(Vec<(Box<str>, u32)>),
    Many(HashMap<Box<str>, u32>),
}

impl Children {
    fn get(&self, level: &str) -> Option<u32> {
        match self {
            Self::Few(few) => few.iter().find(|(name, _)| **name == *level).map(|(_, node)| *node),
            Self::Many(many) => many.get(level).copied(),
        }
    }

    fn insert(&mut self, level: &str, node: u32) {
        match self {
            Self::Few(few) if few.len() < FEW => few.push((level.into(), node)),
            Self::Few(few) => {
                *self = Self::Many(few.drain(..).chain([(level.into(), node)]).collect());
            }
            Self::Many(many) => {
                many.insert(level.into(), node);
            }
        }
    }

    fn remove(&mut self, level: &str) {
        match self {
            Self::Few(few) => few.retain(|(name, _)| **name != *level),
            Self::Many(many) => {
                many.remove(level);
            }
        }
    }
}

impl<K> Taker<K> {
    fn keeps(&self) -> bool {
        self.lasts && self.qos > Qos::AtMostOnce
    }
}

impl<K> Takers<K> {
    const fn new() -> Self {
        Self { own: Vec::new(), groups: Vec::new() }
    }
}

impl<K> Node<K> {
    const fn new() -> Self {
        Self { children: Children::Few(Vec::new()), any: 0, here: Takers::new(), below: Takers::new(), used: 0 }
    }
}

impl<K: Copy + PartialEq> Index<K> {
    /// No subscriptions.
    pub(crate) fn new() -> Self {
        Self { nodes: vec![Node::new()], free: Vec::new(), filters: 0 }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.filters
    }

    /// Adds one, in the place of the session's own of the same filter. Whether it is new.
    pub(crate) fn insert(&mut self, filter: Filter<'_>, taker: Taker<K>) -> bool {
        let mut node = 0;
        let mut below = false;
        for level in filter.topic.split('/') {
            below = level == "#";
            if !below {
                node = self.child(node, level);
            }
        }
        let takers = self.takers(node, below);
        let is_new = match filter.group {
            None => put_in(&mut takers.own, taker),
            Some(name) => {
                let at = takers.groups.iter().position(|group| *group.name == *name).unwrap_or_else(|| {
                    let text = format!("$share/{name}/{}", filter.topic);
                    takers.groups.push(Group {
                        name: name.into(),
                        filter: text.into(),
                        takers: Vec::new(),
                        lasting: false,
                        next: 0,
                    });
                    takers.groups.len() - 1
                });
                let group = &mut takers.groups[at];
                let is_new = put_in(&mut group.takers, taker);
                group.lasting = group.takers.iter().any(Taker::keeps);
                is_new
            }
        };
        if !is_new {
            return false;
        }
        self.nodes[node as usize].used += 1;
        self.filters += 1;
        true
    }

    /// Removes the session's own of this filter.
    pub(crate) fn remove(&mut self, filter: Filter<'_>, session: K) {
        let Some((path, below)) = self.path(filter.topic) else { return };
        let node = path[path.len() - 1].0;
        let takers = self.takers(node, below);
        let removed = match filter.group {
            None => remove_from(&mut takers.own, session),
            Some(name) => {
                let removed = takers.groups.iter_mut().find(|group| *group.name == *name).is_some_and(|group| {
                    let removed = remove_from(&mut group.takers, session);
                    group.lasting = group.takers.iter().any(Taker::keeps);
                    removed
                });
                takers.groups.retain(|group| !group.takers.is_empty());
                removed
            }
        };
        if removed {
            self.filters -= 1;
            self.nodes[node as usize].used -= 1;
            self.prune(&path);
        }
    }

    /// The group of a filter, if there is one.
    pub(crate) fn group(&mut self, filter: Filter<'_>) -> Option<&mut Group<K>> {
        let (path, below) = self.path(filter.topic)?;
        let takers = self.takers(path[path.len() - 1].0, below);
        takers.groups.iter_mut().find(|group| Some(&*group.name) == filter.group)
    }

    /// The nodes that a filter leads to, with their levels, and whether it ends in `#`.
    fn path<'f>(&self, filter: &'f str) -> Option<(Vec<(u32, &'f str)>, bool)> {
        let mut path = vec![(0_u32, "")];
        for level in filter.split('/') {
            if level == "#" {
                return Some((path, true));
            }
            let parent = &self.nodes[path[path.len() - 1].0 as usize];
            let child = if level == "+" { (parent.any != 0).then_some(parent.any) } else { parent.children.get(level) };
            path.push((child?, level));
        }
        Some((path, false))
    }

    /// Hands everything that takes `topic` to `found`.
    pub(crate) fn find(&mut self, topic: &str, mut found: impl FnMut(Found<'_, K>)) {
        // Topics that begin with `$` are the server's own: no wildcard takes them (§4.7.2).
        let own = topic.starts_with('$');
        self.walk(0, Some(topic), own, &mut found);
    }

    /// `rest` is what is left of the topic below `node`. As deep as the topic has levels.
    fn walk(&mut self, node: u32, rest: Option<&str>, no_wildcard: bool, found: &mut impl FnMut(Found<'_, K>)) {
        let at = node as usize;
        if !no_wildcard {
            self.nodes[at].below.each(found);
        }
        let Some(rest) = rest else {
            self.nodes[at].here.each(found);
            return;
        };
        let (level, rest) = rest.split_once('/').map_or((rest, None), |(level, rest)| (level, Some(rest)));
        let (exact, any) = (self.nodes[at].children.get(level), self.nodes[at].any);
        if let Some(child) = exact {
            self.walk(child, rest, false, found);
        }
        if any != 0 && !no_wildcard {
            self.walk(any, rest, false, found);
        }
    }

    fn takers(&mut self, node: u32, below: bool) -> &mut Takers<K> {
        let node = &mut self.nodes[node as usize];
        if below { &mut node.below } else { &mut node.here }
    }

    fn child(&mut self, parent: u32, level: &str) -> u32 {
        let there = &self.nodes[parent as usize];
        let child = if level == "+" { Some(there.any).filter(|any| *any != 0) } else { there.children.get(level) };
        if let Some(child) = child {
            return child;
        }
        let child = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(Node::new());
            u32::try_from(self.nodes.len() - 1).expect("filters times levels are far below 2^32")
        });
        let there = &mut self.nodes[parent as usize];
        there.used += 1;
        if level == "+" {
            there.any = child;
        } else {
            there.children.insert(level, child);
        }
        child
    }

    /// Removes the nodes at the end of `path` that hold nothing any more.
    fn prune(&mut self, path: &[(u32, &str)]) {
        for at in (1..path.len()).rev() {
            let (node, level) = path[at];
            if self.nodes[node as usize].used > 0 {
                return;
            }
            self.nodes[node as usize] = Node::new();
            self.free.push(node);
            let parent = &mut self.nodes[path[at - 1].0 as usize];
            parent.used -= 1;
            if level == "+" {
                parent.any = 0;
            } else {
                parent.children.remove(level);
            }
        }
    }
}

impl<K> Takers<K> {
    fn each(&mut self, found: &mut impl FnMut(Found<'_, K>)) {
        self.own.iter().for_each(|taker| found(Found::One(taker)));
        for group in &mut self.groups {
            found(Found::Group(group));
        }
    }
}

/// Whether it is new.
fn put_in<K: PartialEq>(takers: &mut Vec<Taker<K>>, taker: Taker<K>) -> bool {
    let there = takers.iter_mut().find(|there| there.session == taker.session);
    match there {
        Some(there) => *there = taker,
        None => {
            takers.push(taker);
            return true;
        }
    }
    false
}

fn remove_from<K: PartialEq>(takers: &mut Vec<Taker<K>>, session: K) -> bool {
    let at = takers.iter().position(|taker| taker.session == session);
    at.map(|at| takers.swap_remove(at)).is_some()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::topic;

    fn taker(session: usize) -> Taker<usize> {
        Taker { session, qos: Qos::AtLeastOnce, lasts: false, no_local: false, retain_as_published: false, id: 0 }
    }

    fn found(index: &mut Index<usize>, topic: &str) -> BTreeSet<usize> {
        let mut all = BTreeSet::new();
        index.find(topic, |found| match found {
            Found::One(taker) => assert!(all.insert(taker.session), "found twice"),
            Found::Group(group) => all.extend(group.takers.iter().map(|taker| taker.session)),
        });
        all
    }

    proptest! {
        /// Against matching one by one, with removals in between; what is empty in the end has no nodes.
        #[test]
        fn the_tree_finds_what_matching_finds(
            filters in prop::collection::vec(("[ab+#/]{1,6}", any::<bool>(), any::<bool>()), 1..24),
            topic in "[ab$/]{1,6}",
        ) {
            let mut index = Index::new();
            let mut kept = Vec::new();
            for (session, (text, group, keep)) in filters.iter().enumerate() {
                if topic::is_filter(text) {
                    let filter = Filter { group: group.then_some("g"), topic: text };
                    prop_assert!(index.insert(filter, taker(session)));
                    prop_assert!(!index.insert(filter, taker(session)));
                    kept.push((session, filter, *keep));
                }
            }
            prop_assert_eq!(index.len(), kept.len());
            for (session, filter, _) in kept.extract_if(.., |(_, _, keep)| !*keep) {
                index.remove(filter, session);
            }
            let plain: BTreeSet<_> =
                kept.iter().filter(|(_, filter, _)| topic::matches(filter.topic, &topic)).map(|(s, ..)| *s).collect();
            prop_assert_eq!(found(&mut index, &topic), plain);
            for (session, filter, _) in kept {
                index.remove(filter, session);
            }
            prop_assert_eq!((index.len(), index.nodes.len()), (0, index.free.len() + 1));
        }
    }

    #[test]
    fn many_children_are_found_as_well() {
        let mut index = Index::new();
        let filters: Vec<_> = (0..100).map(|n| format!("plant/{n}/x")).collect();
        for (session, filter) in filters.iter().enumerate() {
            index.insert(Filter { group: None, topic: filter }, taker(session));
        }
        assert_eq!(found(&mut index, "plant/42/x"), BTreeSet::from([42]));
        index.remove(Filter { group: None, topic: "plant/42/x" }, 42);
        assert!(found(&mut index, "plant/42/x").is_empty());
        assert_eq!(found(&mut index, "plant/43/x"), BTreeSet::from([43]));
    }
}
