//! Removes what nothing needs any more: components that no kept revision refers to, contents that no object has, and the code
//! that was compiled of what is gone. Never what a deployment under way, or a revision that may be running, could still ask for.

use std::sync::Arc;
use std::time::Duration;

use marram_runtime::Runtime;
use marram_store::{Store, limits};
use tokio_util::sync::CancellationToken;

/// How often it looks. It looks at the start, too: a node may never run for as long as this.
const INTERVAL: Duration = Duration::from_secs(3_600);

/// Looks until it is stopped.
pub(crate) async fn run(store: Arc<Store>, runtime: Arc<Runtime>, stop: CancellationToken) {
    loop {
        let (store, runtime) = (Arc::clone(&store), Arc::clone(&runtime));
        if let Err(error) = tokio::task::spawn_blocking(move || collect(&store, &runtime)).await {
            tracing::error!(%error, "removing what is no longer used failed");
        }
        if stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
            return;
        }
    }
}

/// Components first: code goes with its component. Of a database that is damaged nothing is collected.
fn collect(store: &Store, runtime: &Runtime) {
    match store.collect_blobs(limits::BLOB_GRACE) {
        Ok(collected) if collected.blobs > 0 => {
            tracing::info!(
                blobs = collected.blobs,
                bytes = collected.bytes,
                "removed components and contents of objects that are no longer used"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::error!(%error, "unused components cannot be removed"),
    }
    match runtime.collect_code(|component| store.blobs().has(component)) {
        Ok(bytes) if bytes > 0 => tracing::info!(bytes, "removed compiled code that is no longer used"),
        Ok(_) => {}
        Err(error) => tracing::error!(%error, "unused compiled code cannot be removed"),
    }
}
