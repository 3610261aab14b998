//! The HTTP front of a node: it accepts connections, holds clients to their limits, finds the function by host and path,
//! and passes requests and answers through, streaming.
//!
//! It knows functions only as [`Invoke`](marram_core::port::Invoke): it never compiles, deploys or meters them. It never
//! gathers a body, and never trusts a header that says where a request came from.
//!
//! ```no_run
//! use std::sync::Arc;
//! use marram_core::port::{Clock, Entropy, Invoke};
//! use marram_core::route::RoutePattern;
//! use marram_gateway::{Gateway, GatewayConfig, Route, Table, Target};
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>, price: Arc<dyn Invoke>) -> anyhow::Result<()> {
//! let gateway = Gateway::new(GatewayConfig::default(), clock, entropy, Arc::new(marram_gateway::Unobserved));
//! let target = Target::new(price, 8 << 20);
//! let route = Route { pattern: RoutePattern::parse("/price/...")?, methods: vec![], target };
//! gateway.routes().swap(Table::build([route])?); // at each deploy; requests in flight keep their target
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let stop = CancellationToken::new();
//! let drained = gateway.serve(listener, stop.clone()).await; // once `stop` is cancelled and the drain is over
//! assert_eq!(drained.cut, 0);
//! # Ok(()) }
//! ```
//!
//! What a function sees: an absolute URI (`http://<host>/<path>`), `host`, `traceparent` whose span is the invocation's
//! (also in [`Call`](marram_core::port::Call)), `forwarded` and `x-forwarded-for|host|proto`, and one
//! `marram-param-<name>` for each parameter of its route. What a client sees besides the answer: `date` and
//! `marram-request-id`.

mod body;
mod connection;
mod forwarded;
mod framing;
mod head;
mod headers;
mod limits;
mod listen;
mod observe;
mod pace;
mod problem;
mod request;
mod request_line;
mod socket;
mod state;
mod table;

use std::future::Future;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use marram_core::port::{Clock, Entropy};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use limits::Limits;
pub use observe::{GatewayObserver, RequestEnd, Unobserved};
pub use table::{Captures, Found, Route, Table, TableError, Target};

/// What an operator sets.
#[derive(Clone, Debug, Default)]
pub struct GatewayConfig {
    /// Limits on clients.
    pub limits: Limits,
    /// Address ranges of proxies whose `forwarded` and `x-forwarded-*` headers are believed. From anybody else they are
    /// replaced.
    pub trusted_proxies: Vec<IpNet>,
}

/// The front. One serves any number of listeners with one routing table.
#[derive(Clone)]
pub struct Gateway(Arc<Shared>);

/// What every connection and request refers to.
struct Shared {
    config: GatewayConfig,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    observer: Arc<dyn GatewayObserver>,
    routes: Routes,
}

/// A handle to the routing table in use.
#[derive(Clone)]
pub struct Routes(Arc<ArcSwap<Table>>);

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut at the deadline, with a request in flight.
    pub cut: usize,
}

impl Gateway {
    /// A front with an empty routing table. `clock`'s monotonic time has to pass as tokio's does.
    #[must_use]
    pub fn new(
        config: GatewayConfig,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        observer: Arc<dyn GatewayObserver>,
    ) -> Self {
        let routes = Routes(Arc::new(ArcSwap::from_pointee(Table::default())));
        Self(Arc::new(Shared { config, clock, entropy, observer, routes }))
    }

    /// The routing table, to swap at a deploy.
    #[must_use]
    pub fn routes(&self) -> Routes {
        self.0.routes.clone()
    }

    /// Serves `listener` until `stop` is cancelled; then accepts nothing more, lets requests in flight finish within
    /// [`Limits::drain`], and resolves. Every task it started has ended by then.
    pub fn serve(
        &self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> impl Future<Output = Drained> + Send + use<> {
        listen::serve(self.0.clone(), listener, stop)
    }
}

impl Routes {
    /// Puts `table` in the place of the one in use. Requests that are in flight keep the target that they found.
    pub fn swap(&self, table: Table) {
        self.0.store(Arc::new(table));
    }
}
