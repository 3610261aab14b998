//! What time does to state: old events go, keys expire, uploads in parts that nobody goes on with end. The store does it in
//! small steps; this says when.

use std::sync::Arc;
use std::time::Duration;

use marram_core::Failure;
use marram_core::port::Clock;
use marram_store::{Keys, KvMaintained, Objects, Store, StoreStreams};
use tokio_util::sync::CancellationToken;

/// How often events and cursors are looked at. An expired key reads as absent at once; only its event waits.
const INTERVAL: Duration = Duration::from_secs(1);
/// The least wait between two steps when there is more to do: others' writes come in between.
const BREATH: Duration = Duration::from_millis(10);

/// Works until it is stopped.
pub(crate) async fn run(
    store: Arc<Store>,
    streams: Arc<StoreStreams>,
    keys: Keys,
    objects: Objects,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    let (mut complained, mut full) = (false, false);
    loop {
        let was = std::mem::replace(&mut full, store.is_full());
        match (was, full) {
            (false, true) => {
                tracing::warn!("the disk is full: what would add something is refused until there is space")
            }
            (true, false) => tracing::info!("there is space on the disk again"),
            _ => {}
        }
        let done = step(&streams, &keys, &objects).await;
        if let Some(what) = done.complaint.as_ref().filter(|_| !complained) {
            tracing::error!("state cannot be tended: {what}");
        }
        // A full disk says so once, and not every second.
        complained = done.complaint.is_some() || complained && done.more;
        let wait = match done {
            Done { more: true, .. } => BREATH,
            // What is due could not be done.
            Done { complaint: Some(_), .. } => INTERVAL,
            Done { .. } => next(&keys, clock.unix_ns()),
        };
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}

/// What a step did.
#[derive(Default)]
struct Done {
    /// There is more to do at once.
    more: bool,
    /// What could not be done.
    complaint: Option<String>,
}

impl Done {
    fn add(&mut self, part: Result<bool, Failure>) {
        match part {
            Ok(more) => self.more |= more,
            Err(failure) => self.complaint = self.complaint.take().or_else(|| Some(format!("{failure:?}"))),
        }
    }
}

/// One step of each; none waits for what another fails at.
async fn step(streams: &StoreStreams, keys: &Keys, objects: &Objects) -> Done {
    let mut done = Done::default();
    done.add(streams.maintain().await.map(|events| events.more));
    let expired = keys.maintain().await;
    if let Ok(KvMaintained { refused: 1.., .. }) = expired {
        let why = "keys cannot expire, because a stream that captures them is full: `marram stream ls` shows which";
        done.complaint.get_or_insert(why.to_owned());
    }
    done.add(expired.map(|keys| keys.more).map_err(Failure::from));
    done.add(objects.maintain().await.map(|uploads| uploads > 0).map_err(Failure::from));
    done
}

/// Until the next second, or until a key expires before that.
fn next(keys: &Keys, now_unix_ns: u64) -> Duration {
    let due = keys.next_due_unix_ns().ok().flatten();
    due.map_or(INTERVAL, |due| Duration::from_nanos(due.saturating_sub(now_unix_ns)).clamp(BREATH, INTERVAL))
}
