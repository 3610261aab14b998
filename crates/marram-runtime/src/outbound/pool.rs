//! The open connections of one grant, by origin. Bounded in idle ones per origin, per grant, and on the node.
//!
//! Nothing here waits and nothing runs by itself: a connection that closes, or has been idle for too long, removes
//! itself (see [`super::link`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::limits::{CONNECTION_AGE_MAX, GrantLimits, H2_STREAMS_MAX};
use super::link::Link;
use super::target::Origin;

pub(super) struct Pool {
    limits: GrantLimits,
    links: Mutex<Links>,
}

#[derive(Default)]
struct Links {
    of: HashMap<Origin, Vec<Entry>>,
    idle: usize,
}

struct Entry {
    link: Arc<Link>,
    /// Exchanges under way on it.
    active: usize,
    /// There while the link is idle: its share of the node's bound.
    idle: Option<OwnedSemaphorePermit>,
}

impl Pool {
    pub(super) fn new(limits: GrantLimits) -> Self {
        Self { limits, links: Mutex::default() }
    }

    /// An open connection to the origin with room for one more exchange, which now is under way on it.
    pub(super) fn check_out(&self, origin: &Origin) -> Option<Arc<Link>> {
        let mut links = self.lock();
        let Links { of, idle } = &mut *links;
        let usable = |entry: &&mut Entry| {
            let room = if entry.link.is_h2() { H2_STREAMS_MAX } else { 1 };
            entry.active < room && !entry.link.is_closed() && entry.link.opened.elapsed() < CONNECTION_AGE_MAX
        };
        // The last one that was used is the least likely to be just closing.
        let entry = of.get_mut(origin)?.iter_mut().rev().find(usable)?;
        entry.active += 1;
        if entry.idle.take().is_some() {
            *idle -= 1;
            entry.link.idle_until.send_replace(None);
        }
        Some(entry.link.clone())
    }

    /// Takes a new connection in, with the exchange for which it was made under way on it.
    pub(super) fn insert(&self, origin: &Origin, link: Arc<Link>) {
        self.lock().of.entry(origin.clone()).or_default().push(Entry { link, active: 1, idle: None });
    }

    /// Ends an exchange. The connection stays if it is to be kept, is open, and there is room among the idle ones of
    /// this grant and (`node_idle`) of the node.
    pub(super) fn check_in(&self, origin: &Origin, id: u64, keep: bool, node_idle: &Arc<Semaphore>) {
        let mut links = self.lock();
        let total = links.idle;
        let Some(entries) = links.of.get_mut(origin) else { return };
        let idle_here = entries.iter().filter(|entry| entry.idle.is_some()).count();
        let other_h2 = entries.iter().any(|entry| entry.link.id != id && entry.link.is_h2() && !entry.link.is_closed());
        let Some(at) = entries.iter().position(|entry| entry.link.id == id) else { return };
        let entry = &mut entries[at];
        entry.active -= 1;
        // One HTTP/2 connection is enough for an origin; more were opened only while that was not known or it was full.
        let room = if entry.link.is_h2() { !other_h2 } else { idle_here < self.limits.idle_per_origin };
        let stays = keep && !entry.link.is_closed() && entry.link.opened.elapsed() < CONNECTION_AGE_MAX;
        if stays && entry.active > 0 {
            return;
        }
        let permit = if stays && room && total < self.limits.idle_total {
            node_idle.clone().try_acquire_owned().ok()
        } else {
            None
        };
        match permit {
            Some(permit) => {
                entry.idle = Some(permit);
                entry.link.idle_until.send_replace(Some(Instant::now() + self.limits.idle));
                let last_used = entries.remove(at);
                entries.push(last_used);
                links.idle += 1;
            }
            None => links.remove(origin, id),
        }
    }

    /// Forgets a connection. Exchanges that are under way on it go on.
    pub(super) fn remove(&self, origin: &Origin, id: u64) {
        self.lock().remove(origin, id);
    }

    fn lock(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> (usize, usize) {
        let links = self.lock();
        (links.of.values().map(Vec::len).sum(), links.idle)
    }
}

impl Links {
    fn remove(&mut self, origin: &Origin, id: u64) {
        let Some(entries) = self.of.get_mut(origin) else { return };
        if let Some(at) = entries.iter().position(|entry| entry.link.id == id) {
            self.idle -= usize::from(entries.remove(at).idle.is_some());
        }
        if entries.is_empty() {
            self.of.remove(origin);
        }
    }
}
