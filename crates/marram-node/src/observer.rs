//! What the HTTP front sees, counted by telemetry.

use std::sync::Arc;

use marram_core::Kind;
use marram_core::port::Observe;
use marram_gateway::{GatewayObserver, RequestEnd};
use marram_telemetry::Telemetry;

/// Joins the gateway's observer to telemetry's counters.
pub(crate) struct Counted(pub(crate) Arc<Telemetry>);

impl GatewayObserver for Counted {
    fn opened(&self) {
        self.0.http().opened();
    }

    fn closed(&self) {
        self.0.http().closed();
    }

    fn request(&self, end: &RequestEnd<'_>) {
        self.0.http().answered(end.status, end.duration);
        // Other failures of a function's requests are its invocation's, which the runtime counts.
        if let (Some(id), Some(kind), true) = (end.id, end.failure, end.refused) {
            self.0.refused(id, kind);
        }
    }

    fn refused(&self, kind: Kind) {
        self.0.http().refused(kind);
    }

    fn accept_failed(&self, error: &std::io::Error) {
        self.0.http().accept_failed();
        tracing::warn!(%error, "a connection could not be accepted");
    }
}
