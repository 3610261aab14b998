//! The last planned moment of a schedule, where it outlives the node.

use std::sync::Arc;

use marram_core::port::kv::{Change, Expect};
use marram_core::port::{Kv, Streams};
use marram_core::stream::{Start, StreamName};
use marram_core::{Failure, Kind, Name};

use super::{BUCKET, Schedule};

fn bucket() -> Result<Name, Failure> {
    Name::new(BUCKET).map_err(|error| Failure::new(Kind::Internal, error.to_string()))
}

/// What was written last; `None` for a schedule that is new.
pub(super) fn load(kv: &dyn Kv, schedule: &Schedule) -> Result<Option<u64>, Failure> {
    let entry = kv.get(&bucket()?, &schedule.subject)?;
    Ok(entry.and_then(|entry| std::str::from_utf8(&entry.value).ok()?.parse().ok()))
}

/// Writes the moment; durable when it resolves.
pub(super) async fn store(kv: &dyn Kv, schedule: &Schedule, unix_ns: u64) -> Result<(), Failure> {
    let value = unix_ns.to_string().into();
    let put = Change::Put { key: schedule.subject.to_string(), value, ttl: None, expect: Expect::Any };
    kv.apply(&bucket()?, vec![put]).await.map(drop)
}

/// Forgets a schedule that is no more: should it come again, it is new.
pub(crate) async fn forget(kv: &dyn Kv, subject: &str) -> Result<(), Failure> {
    kv.apply(&bucket()?, vec![Change::Delete { key: subject.to_owned(), expect: Expect::Any }]).await.map(drop)
}

/// The last moment that was published after `last` was written. Blocks for reads of the disk.
pub(super) fn published_since(streams: &Arc<dyn Streams>, schedule: &Schedule, last: u64) -> Result<u64, Failure> {
    let (stream, mut newest, mut from) = (StreamName::schedule(), last, Start::Time(last));
    loop {
        let page = match streams.read(&stream, from, 1_000) {
            Ok(page) => page,
            // Nothing was ever published.
            Err(failure) if failure.kind() == Kind::NotFound => return Ok(newest),
            Err(failure) => return Err(failure),
        };
        let Some(end) = page.last().map(|stored| stored.position) else { return Ok(newest) };
        for stored in page.iter().filter(|stored| stored.event.subject == *schedule.subject) {
            newest = newest.max(planned(&stored.event.time).unwrap_or(0));
        }
        from = Start::Position(end + 1);
    }
}

fn planned(time: &str) -> Option<u64> {
    u64::try_from(time.parse::<jiff::Timestamp>().ok()?.as_nanosecond()).ok()
}
