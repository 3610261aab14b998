//! Names to addresses: the system's resolver, behind a small cache and bounds. What comes out is not checked yet.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::OutboundError;
use super::limits::{ADDRESSES_MAX, LOOKUP_FAILURE_KEPT, LOOKUP_KEPT, LOOKUP_WAIT, LOOKUPS_KEPT_MAX, LOOKUPS_MAX};

/// Asks for the addresses of a name. The permits are held until the asking is over, also when nobody waits any more.
pub(crate) type Lookup =
    Arc<dyn Fn(String, [OwnedSemaphorePermit; 2]) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// An answer, or why there is none.
type Answer = Result<Arc<[IpAddr]>, String>;

pub(super) struct Resolver {
    lookup: Lookup,
    permits: Arc<Semaphore>,
    kept: Mutex<HashMap<Arc<str>, (Instant, Answer)>>,
}

/// `getaddrinfo`, which blocks a thread and cannot be stopped: hence the permits move in.
pub(super) fn system() -> Lookup {
    Arc::new(|name, permits| {
        let asking = tokio::task::spawn_blocking(move || {
            let _permits = permits;
            (name.as_str(), 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect())
        });
        Box::pin(async move { asking.await.map_err(io::Error::other)? })
    })
}

impl Resolver {
    pub(super) fn new(lookup: Lookup) -> Self {
        Self { lookup, permits: Arc::new(Semaphore::new(LOOKUPS_MAX)), kept: Mutex::default() }
    }

    /// The addresses of `name` in the system's order of preference, at least one. `own` bounds the look-ups of whoever
    /// asks; the node's bound holds besides.
    pub(super) async fn resolve(&self, name: &Arc<str>, own: &Arc<Semaphore>) -> Result<Arc<[IpAddr]>, OutboundError> {
        let answer = match self.kept(name) {
            Some(answer) => answer,
            None => match timeout(LOOKUP_WAIT, self.ask(name, own)).await {
                Ok(answer) => answer,
                Err(_) => Err("the resolver did not answer in time".to_owned()),
            },
        };
        answer.map_err(|reason| OutboundError::Dns { host: name.to_string(), reason })
    }

    async fn ask(&self, name: &Arc<str>, own: &Arc<Semaphore>) -> Answer {
        // The function's permit comes first: whoever waits for it holds none of the node's.
        let own = own.clone().acquire_owned().await.map_err(|error| error.to_string())?;
        let node = self.permits.clone().acquire_owned().await.map_err(|error| error.to_string())?;
        // Another request may have asked for the same name in the meantime.
        if let Some(answer) = self.kept(name) {
            return answer;
        }
        let answer = match (self.lookup)(name.to_string(), [own, node]).await {
            Ok(found) if found.is_empty() => Err("it has no address".to_owned()),
            Ok(found) => Ok(found.into_iter().take(ADDRESSES_MAX).map(|address| address.to_canonical()).collect()),
            Err(error) => Err(error.to_string()),
        };
        self.keep(name, &answer);
        answer
    }

    fn kept(&self, name: &Arc<str>) -> Option<Answer> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(name).filter(|(until, _)| Instant::now() < *until).map(|(_, answer)| answer.clone())
    }

    fn keep(&self, name: &Arc<str>, answer: &Answer) {
        let now = Instant::now();
        let until = now + if answer.is_ok() { LOOKUP_KEPT } else { LOOKUP_FAILURE_KEPT };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= LOOKUPS_KEPT_MAX {
            kept.retain(|_, (until, _)| now < *until);
        }
        if kept.len() < LOOKUPS_KEPT_MAX {
            kept.insert(name.clone(), (until, answer.clone()));
        }
    }
}
