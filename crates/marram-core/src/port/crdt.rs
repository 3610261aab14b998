//! Sets and maps in buckets that every node can change at any time, for `marram:crdt`. The store implements.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::port::kv::Version;
use crate::{Failure, Name};

/// One change of a collection. Removals take away what this node has seen: what another node added meanwhile stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CrdtChange {
    /// Adds a member to the set; that it is there is fine.
    SetAdd(Bytes),
    /// Removes a member of the set; that it is not there is fine.
    SetRemove(Bytes),
    /// Puts a value into a field of the map; the latest is read.
    MapPut {
        /// The field.
        field: String,
        /// The value.
        value: Bytes,
    },
    /// Adds to the counter in a field of the map, which begins at 0.
    MapIncrement {
        /// The field.
        field: String,
        /// What is added.
        delta: i64,
    },
    /// Adds a member to the set in a field of the map.
    MapAdd {
        /// The field.
        field: String,
        /// The member.
        member: Bytes,
    },
    /// Removes a member of the set in a field of the map.
    MapDiscard {
        /// The field.
        field: String,
        /// The member.
        member: Bytes,
    },
    /// Removes a field of the map, with all that is in it.
    MapRemove {
        /// The field.
        field: String,
    },
}

/// What a key with a collection holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collection {
    /// A set.
    Set(BTreeSet<Bytes>),
    /// A map.
    Map(BTreeMap<String, Field>),
}

/// One field of a map: any of a value, a counter and a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// What was last put.
    pub value: Option<Bytes>,
    /// What was added up, if anything was.
    pub count: Option<i64>,
    /// The members.
    pub members: BTreeSet<Bytes>,
}

/// The collections of a node. They live in the same buckets as other keys, and are listed, deleted and watched as these;
/// an emptied one is there until it is deleted. What a collection keeps, with its bookkeeping, has at most
/// [`crate::limits::KV_VALUE_BYTES_MAX`] bytes, and every change writes all of it: for thousands of members, not for millions.
pub trait Crdt: Send + Sync + 'static {
    /// All of `changes` in one transaction, or none; resolves once they are durable, with the version that was written. It
    /// is `None` where only removals from nothing were asked for. Many changes of one collection cost little more than one.
    ///
    /// Fails with [`crate::Kind::Conflict`] where the key holds something else, or a counter would leave the range of `i64`.
    fn crdt_update(
        &self,
        bucket: &Name,
        key: &str,
        changes: Vec<CrdtChange>,
    ) -> BoxFuture<'_, Result<Option<Version>, Failure>>;

    /// What the key holds. Fails with [`crate::Kind::Conflict`] where that is not a collection. May block for a read of the
    /// disk.
    fn crdt_read(&self, bucket: &Name, key: &str) -> Result<Option<Arc<Collection>>, Failure>;
}
