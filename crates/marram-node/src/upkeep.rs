//! What time does to state: old events go, keys expire, uploads in parts that nobody goes on with end. The store does it in
//! small steps; this says when.

use std::sync::Arc;
use std::time::Duration;

use marram_core::port::Clock;
use marram_store::{Keys, Objects, StoreStreams};
use tokio_util::sync::CancellationToken;

/// How often events and cursors are looked at. An expired key reads as absent at once; only its event waits.
const INTERVAL: Duration = Duration::from_secs(1);
/// The least wait between two steps when there is more to do: others' writes come in between.
const BREATH: Duration = Duration::from_millis(10);

/// Works until it is stopped.
pub(crate) async fn run(
    streams: Arc<StoreStreams>,
    keys: Keys,
    objects: Objects,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    let mut complained = false;
    loop {
        let more = match step(&streams, &keys, &objects).await {
            Ok(more) => {
                complained = false;
                more
            }
            Err(failure) => {
                // A full disk says so once, and not every second.
                if !complained {
                    tracing::error!("state cannot be tended: {failure:?}");
                }
                complained = true;
                false
            }
        };
        let wait = if more { BREATH } else { next(&keys, clock.unix_ns()) };
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}

/// One step of each. Says whether there is more to do at once.
async fn step(streams: &StoreStreams, keys: &Keys, objects: &Objects) -> Result<bool, marram_core::Failure> {
    let events = streams.maintain().await?;
    let keys = keys.maintain().await?;
    let uploads = objects.maintain().await?;
    Ok(events.more || keys.more || uploads > 0)
}

/// Until the next second, or until a key expires before that.
fn next(keys: &Keys, now_unix_ns: u64) -> Duration {
    let due = keys.next_due_unix_ns().ok().flatten();
    due.map_or(INTERVAL, |due| Duration::from_nanos(due.saturating_sub(now_unix_ns)).clamp(BREATH, INTERVAL))
}
