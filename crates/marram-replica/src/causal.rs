//! The one rule behind sets and maps: what is there, each under the dot of the change that put it there, and which changes
//! have been seen.
//!
//! A dot that one side has and the other has *seen* but no longer has was removed there, and goes; one that the other has
//! not seen is new to it, and stays (Almeida et al. §7.3, a `DotFun` with immutable values). So a removal leaves nothing
//! behind but a number in the context, and an addition that the remover had not seen wins.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Context, Dot, NodeId};

/// Things under dots, with the context. A dot always stands for the same thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Causal<T> {
    context: Context,
    dots: BTreeMap<Dot, T>,
}

/// Changes in a row that are thought out and not made yet. What each replaces is looked up once for all of them, by whoever
/// makes them: a search for each would be as many passes over everything that is there.
#[derive(Debug)]
pub(crate) struct Edit<T> {
    next: Dot,
    /// Also of what one change of the row put there and a later one took away.
    gone: Vec<Dot>,
    added: BTreeMap<Dot, T>,
}

impl<T> Edit<T> {
    /// Takes away what is under these dots.
    pub(crate) fn remove(&mut self, dots: impl IntoIterator<Item = Dot>) {
        for dot in dots {
            self.added.remove(&dot);
            self.gone.push(dot);
        }
    }

    /// Puts something there, under the next dot of the node, which is returned.
    pub(crate) fn add(&mut self, thing: T) -> Dot {
        let dot = self.next;
        self.next.seq += 1;
        self.added.insert(dot, thing);
        dot
    }
}

impl<T> Default for Causal<T> {
    fn default() -> Self {
        Self { context: Context::default(), dots: BTreeMap::new() }
    }
}

impl<T: Clone> Causal<T> {
    /// What is there, in the order of dots.
    pub fn iter(&self) -> impl Iterator<Item = (Dot, &T)> {
        self.dots.iter().map(|(dot, thing)| (*dot, thing))
    }

    /// Which changes have been seen.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.context
    }

    /// Whether nothing is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dots.is_empty()
    }

    /// Begins changes of `node` that are to be made in a row.
    pub(crate) fn edit(&self, node: NodeId) -> Edit<T> {
        Edit { next: self.context.next(node), gone: Vec::new(), added: BTreeMap::new() }
    }

    /// Makes the changes of an edit that was begun on this state, all at once. Returns the delta: the join of their deltas.
    pub(crate) fn apply(&mut self, edit: Edit<T>) -> Self {
        for dot in &edit.gone {
            self.dots.remove(dot);
        }
        let context: Context = edit.gone.into_iter().chain(edit.added.keys().copied()).collect();
        self.context.merge(&context);
        self.dots.extend(edit.added.iter().map(|(dot, thing)| (*dot, thing.clone())));
        Self { context, dots: edit.added }
    }

    /// The join of both.
    pub fn merge(&mut self, other: &Self) {
        self.dots.retain(|dot, _| other.dots.contains_key(dot) || !other.context.includes(*dot));
        for (dot, thing) in &other.dots {
            // What is here already is the same; what was seen and is not here was removed here.
            if !self.context.includes(*dot) {
                self.dots.insert(*dot, thing.clone());
            }
        }
        self.context.merge(&other.context);
    }
}
