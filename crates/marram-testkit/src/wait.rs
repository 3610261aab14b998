//! Waiting for a condition, with a deadline, in the place of sleeping.

use std::time::Duration;

/// Longer than anything that works takes, on a machine that is busy with other tests: a process under `strace` shares it with
/// whole nodes.
const DEADLINE: Duration = Duration::from_secs(120);

/// Tries until `attempt` gives something; panics after two minutes.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut attempt: impl FnMut() -> F) -> T {
    let tried = async {
        loop {
            if let Some(found) = attempt().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, tried).await.unwrap_or_else(|_| panic!("this did not happen: {what}"))
}
