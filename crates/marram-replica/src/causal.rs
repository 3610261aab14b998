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

    /// Removes what `replaced` picks and puts `new` there under the next dot of `node`, if there is something new. Returns
    /// the delta.
    pub fn replace(&mut self, node: NodeId, replaced: impl Fn(Dot, &T) -> bool, new: Option<T>) -> Self {
        let mut delta = Self::default();
        let gone: Vec<Dot> =
            self.dots.iter().filter(|(dot, thing)| replaced(**dot, thing)).map(|(dot, _)| *dot).collect();
        for dot in &gone {
            self.dots.remove(dot);
        }
        let added = new.map(|thing| (self.context.next(node), thing));
        if let Some((dot, thing)) = added {
            self.context.insert(dot);
            self.dots.insert(dot, thing.clone());
            delta.dots.insert(dot, thing);
        }
        delta.context = gone.into_iter().chain(delta.dots.keys().copied()).collect();
        delta
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
