//! One request and its answer: the checks in their order, a connection, the head of the answer.

use std::pin::pin;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use marram_core::port::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use super::body::{Progress, RequestBody, ResponseBody};
use super::error::of_exchange;
use super::limits::Timeouts;
use super::link::Link;
use super::pool::Pool;
use super::target::Origin;
use super::{Grant, Outbound, OutboundError, message};

/// The use of a connection for one exchange. Dropping it gives the connection back, or closes it if the exchange is not
/// complete and the connection cannot carry others (HTTP/1.1).
pub(super) struct Lease {
    pub(super) origin: Origin,
    pub(super) end: End,
    link: Arc<Link>,
    pool: Arc<Pool>,
    node_idle: Arc<Semaphore>,
    progress: Arc<Progress>,
    /// The function's permit, until the end of the answer.
    _permit: Arc<OwnedSemaphorePermit>,
}

/// How far an exchange has come when its lease ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Somewhere in between: nobody wants the rest, or it failed.
    Early,
    /// The answer came to its end.
    Complete,
    /// The server does not go on. It gets no further requests on this connection.
    Stuck,
    /// The connection was closed already; the request goes elsewhere.
    NotSent,
}

impl Lease {
    /// What an error of the HTTP machinery means in this exchange.
    pub(super) fn classify(&self, error: &hyper::Error) -> OutboundError {
        match self.progress.failure() {
            Some(failure) => OutboundError::BodyError(failure),
            None => of_exchange(&self.origin.to_string(), &self.origin.host.to_string(), error),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let whole = self.end == End::Complete && self.progress.is_request_done();
        if !whole && self.end != End::NotSent {
            self.progress.abandon();
        }
        let keep = whole || (self.link.is_h2() && matches!(self.end, End::Early | End::Complete));
        self.pool.check_in(&self.origin, self.link.id, keep, &self.node_idle);
        if !keep && !self.link.is_h2() {
            self.link.abort();
        }
    }
}

/// What came of a request on one connection.
enum Sent {
    Answered(Response<ResponseBody>),
    /// The connection was closed already; nothing of the request was sent.
    Not(Request<RequestBody>, OutboundError),
}

impl Outbound {
    /// As [`Outbound::send`], with a body whose errors are [`OutboundError`]s, for engines that hand on their class.
    ///
    /// An answer that is complete before its request is ends the exchange: the rest of the request is not sent. A `GET`
    /// or `HEAD` with a body of unknown length is sent without it over HTTP/1.1, as clients do; `content-length` keeps it.
    pub(crate) async fn exchange(
        &self,
        grant: &Arc<Grant>,
        request: Request<Body>,
        timeouts: Timeouts,
    ) -> Result<Response<ResponseBody>, OutboundError> {
        let timeouts = timeouts.bounded();
        let origin = Origin::of(request.uri())?;
        grant.check_origin(&origin)?;
        let (mut head, body) = request.into_parts();
        let declared = message::prepare(&mut head, &body)?;
        let progress = Arc::new(Progress::default());
        let mut request = Request::from_parts(head, RequestBody::new(body, declared, progress.clone()));
        let permit = Arc::new(grant.permit(timeouts.connect).await?);
        let lease = |link| Lease {
            origin: origin.clone(),
            end: End::Early,
            link,
            pool: grant.pool.clone(),
            node_idle: self.idle.clone(),
            progress: progress.clone(),
            _permit: permit.clone(),
        };

        // A kept connection may have been closed by its server a moment ago: what was not sent on it is sent on a new one.
        if let Some(link) = grant.pool.check_out(&origin) {
            match send_on(lease(link), request, &timeouts).await? {
                Sent::Answered(response) => return Ok(response),
                Sent::Not(back, _) => request = back,
            }
        }
        let link = self.open(grant, &origin, timeouts.connect).await?;
        match send_on(lease(link), request, &timeouts).await? {
            Sent::Answered(response) => Ok(response),
            Sent::Not(_, error) => Err(error),
        }
    }
}

/// Sends the request on the lease's connection and waits for the head of the answer, for as long as the request's body
/// makes progress and `first_byte` after that.
async fn send_on(mut lease: Lease, request: Request<RequestBody>, timeouts: &Timeouts) -> Result<Sent, OutboundError> {
    let (mut head, body) = request.into_parts();
    message::address(&mut head, &lease.origin, lease.link.is_h2())?;
    let request = Request::from_parts(head, body);

    let not_ready = match timeout(timeouts.connect, lease.link.ready()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(lease.classify(&error)),
        Err(_) => Some(OutboundError::ConnectTimeout { origin: lease.origin.to_string() }),
    };
    if let Some(error) = not_ready {
        lease.end = End::NotSent;
        return Ok(Sent::Not(request, error));
    }

    let answer = {
        let link = lease.link.clone();
        let progress = lease.progress.clone();
        let mut answer = pin!(link.send(request));
        let mut too_late = pin!(sleep(timeouts.first_byte));
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => break answer,
                () = progress.sent_more.notified() => too_late.as_mut().reset(Instant::now() + timeouts.first_byte),
                () = &mut too_late => {
                    lease.end = End::Stuck;
                    return Err(OutboundError::FirstByteTimeout { origin: lease.origin.to_string() });
                }
            }
        }
    };
    match answer {
        Ok(response) => receive(lease, response, timeouts).map(Sent::Answered),
        Err(mut error) => {
            let class = lease.classify(error.error());
            match error.take_message() {
                Some(request) => {
                    lease.end = End::NotSent;
                    Ok(Sent::Not(request, class))
                }
                None => Err(class),
            }
        }
    }
}

fn receive(
    lease: Lease,
    response: Response<Incoming>,
    timeouts: &Timeouts,
) -> Result<Response<ResponseBody>, OutboundError> {
    let (mut head, incoming) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        let reason = "it switches protocols without having been asked".to_owned();
        return Err(OutboundError::Protocol { origin: lease.origin.to_string(), reason });
    }
    message::strip_hop_by_hop(&mut head.headers);
    Ok(Response::from_parts(head, ResponseBody::new(incoming, lease, timeouts.between_bytes)))
}
