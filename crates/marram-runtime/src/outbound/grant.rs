//! What one function may reach, and what it has open.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use marram_core::manifest::Allow;
use marram_core::outbound::{HostPattern, OutboundRule};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::OutboundError;
use super::address::{inner_class, is_allowed};
use super::limits::{GrantLimits, LOOKUPS_PER_GRANT_MAX};
use super::pool::Pool;
use super::target::{Host, Origin};

/// What one revision of a function may reach. Connections belong to the grant: they are made under its rules, used by
/// nobody else, and closed when it is dropped.
pub(crate) struct Grant {
    rules: Vec<OutboundRule>,
    addresses: Vec<IpNet>,
    limits: GrantLimits,
    exchanges: Arc<Semaphore>,
    waiting: Semaphore,
    pub(super) lookups: Arc<Semaphore>,
    pub(super) pool: Arc<Pool>,
}

impl Grant {
    /// The grant of a function with this part of the manifest.
    #[must_use]
    pub(crate) fn new(allow: &Allow) -> Arc<Self> {
        Self::with_limits(allow, GrantLimits::default())
    }

    pub(super) fn with_limits(allow: &Allow, limits: GrantLimits) -> Arc<Self> {
        Arc::new(Self {
            rules: allow.http.iter().cloned().map(in_one_spelling).collect(),
            addresses: allow.addresses.clone(),
            limits,
            exchanges: Arc::new(Semaphore::new(limits.exchanges)),
            waiting: Semaphore::new(limits.waiting),
            lookups: Arc::new(Semaphore::new(LOOKUPS_PER_GRANT_MAX)),
            pool: Arc::new(Pool::new(limits)),
        })
    }

    /// Whether calling this function of the same app is granted.
    #[must_use]
    pub(crate) fn allows_internal(&self, function: &str) -> bool {
        self.rules.iter().any(|rule| rule.allows_internal(function))
    }

    /// Whether requests to the origin are granted. Its address is not looked at.
    pub(super) fn check_origin(&self, origin: &Origin) -> Result<(), OutboundError> {
        let host = origin.host.to_string();
        let allows = |rule: &OutboundRule| match (rule, &origin.host) {
            // "*.0.0.1" is about names, and no address is below another.
            (OutboundRule::Origin { host: HostPattern::Below(_), .. }, Host::Address(_)) => false,
            _ => rule.allows(origin.tls, &host, origin.port),
        };
        if self.rules.iter().any(allows) {
            return Ok(());
        }
        Err(OutboundError::Denied { origin: origin.to_string(), add: origin.rule().to_string() })
    }

    /// Those of a host's addresses that may be connected to, in their order; an error if there are none.
    pub(super) fn check_addresses(&self, host: &Host, found: &[IpAddr]) -> Result<Vec<IpAddr>, OutboundError> {
        let allowed: Vec<IpAddr> =
            found.iter().copied().filter(|address| is_allowed(*address, &self.addresses)).collect();
        match found.first() {
            Some(address) if allowed.is_empty() => Err(OutboundError::AddressDenied {
                host: host.to_string(),
                address: *address,
                class: inner_class(*address).unwrap_or("not a public address"),
                add: IpNet::from(*address).to_string(),
            }),
            _ => Ok(allowed),
        }
    }

    /// A permit for one request, until the end of its answer. Waits for it if all are taken and few are waiting.
    pub(super) async fn permit(&self, wait: Duration) -> Result<OwnedSemaphorePermit, OutboundError> {
        let too_many = || OutboundError::TooManyConnections { who: "this function", max: self.limits.exchanges };
        if let Ok(permit) = self.exchanges.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let _place = self.waiting.try_acquire().map_err(|_| too_many())?;
        match timeout(wait, self.exchanges.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(too_many()),
        }
    }
}

/// Hosts of rules are compared as text, so both sides have to be spelt as [`Host`] spells them.
fn in_one_spelling(rule: OutboundRule) -> OutboundRule {
    match rule {
        OutboundRule::Origin { tls, host: HostPattern::Exact(host), port } => {
            let host = Host::parse(&host).map_or(host, |parsed| parsed.to_string());
            OutboundRule::Origin { tls, host: HostPattern::Exact(host), port }
        }
        OutboundRule::Origin { tls, host: HostPattern::Below(parent), port } => {
            let parent = parent.strip_suffix('.').map_or(parent.clone(), str::to_owned);
            OutboundRule::Origin { tls, host: HostPattern::Below(parent), port }
        }
        other => other,
    }
}
