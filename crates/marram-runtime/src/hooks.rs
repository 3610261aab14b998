//! Outbound HTTP of a component: one hook serves `wasi:http` 0.2 and 0.3.

use std::sync::{Arc, LazyLock};

use http::{HeaderName, HeaderValue, Request, Response, header};
use marram_core::limits::INTERNAL_DEPTH_MAX;
use marram_core::port::{Body, Call, full_body};
use marram_core::{Failure, Kind, problem};
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttpHooks,
};

use crate::body;
use crate::codes;
use crate::console::Console;
use crate::deployed::Deployed;
use crate::outbound::{self, OutboundError, Timeouts};

/// Ends the name of a host that is a function of the same app: `http://<function>.internal/`.
pub(crate) const INTERNAL_SUFFIX: &str = ".internal";

/// Buffered writes of an answer's body: a guest that writes a small body need not wait for its reader.
const BODY_CHUNKS: usize = 4;
/// Bytes of each: with the number of chunks, what a slow reader can hold in memory.
const BODY_CHUNK_BYTES: usize = 64 << 10;

type Sent = Result<(Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

/// The hooks of one instance.
pub(crate) struct Hooks {
    console: Arc<Console>,
    deployed: Arc<Deployed>,
}

impl Hooks {
    pub(crate) fn new(console: Arc<Console>, deployed: Arc<Deployed>) -> Self {
        Self { console, deployed }
    }
}

static FORBIDDEN: LazyLock<ForbiddenHeaderFilter> =
    LazyLock::new(|| Arc::new(|name| DEFAULT_FORBIDDEN_HEADERS.contains(name)));

impl WasiHttpHooks for Hooks {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        DEFAULT_FORBIDDEN_HEADERS.contains(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::clone(&FORBIDDEN)
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        BODY_CHUNKS
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let call = self.console.any().map(|invocation| invocation.call.clone());
        let (deployed, console) = (Arc::clone(&self.deployed), Arc::clone(&self.console));
        let timeouts = timeouts(options);
        Box::new(async move {
            let sent = send(&deployed, call, request.map(body::from_wasi), timeouts).await;
            match sent {
                Ok(response) => {
                    let done: Box<dyn Future<Output = Result<(), Error>> + Send> = Box::new(async { Ok(()) });
                    Ok((response.map(body::to_wasi), done))
                }
                Err(error) => {
                    // The guest gets a code without words; its developer needs the words.
                    console.warn(format!("outbound request: {error}"));
                    Err(codes::of_send(&error))
                }
            }
        })
    }
}

/// Sends a request of a guest: to a function of its app, or to a network if its grant allows.
pub(crate) async fn send(
    deployed: &Deployed,
    call: Option<Call>,
    mut request: Request<Body>,
    timeouts: Timeouts,
) -> Result<Response<Body>, SendError> {
    if let Some(call) = &call
        && !request.headers().contains_key("traceparent")
        && let Ok(value) = HeaderValue::from_bytes(&call.trace.header())
    {
        request.headers_mut().insert(HeaderName::from_static("traceparent"), value);
    }
    let host = request.uri().host().unwrap_or("");
    // Host names have no case and may end in a dot.
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    match host.strip_suffix(INTERNAL_SUFFIX).map(str::to_owned) {
        Some(function) => send_internal(deployed, call, request, &function).await,
        None => Ok(deployed.outbound.send(&deployed.grant, request, timeouts).await?),
    }
}

/// Why a guest's request was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    #[error("{0}")]
    Internal(Failure),
}

async fn send_internal(
    deployed: &Deployed,
    call: Option<Call>,
    request: Request<Body>,
    function: &str,
) -> Result<Response<Body>, SendError> {
    let refuse = |kind, message: String| Err(SendError::Internal(Failure::new(kind, message)));
    if !deployed.grant.allows_internal(function) {
        let id = &deployed.id;
        return refuse(
            Kind::Unauthorized,
            format!(
                "{id} may not call http://{function}{INTERNAL_SUFFIX}: add \"internal:{function}\" to its allow.http"
            ),
        );
    }
    let Some(callee) = deployed.peers.get(function) else {
        return refuse(Kind::NotFound, format!("the app {} has no function \"{function}\"", deployed.id.app));
    };
    let now = deployed.clock.instant();
    let call = match call {
        Some(call) => {
            Call { trace: call.trace.child(deployed.entropy.span_id()), arrived: now, depth: call.depth + 1, ..call }
        }
        None => Call {
            request: deployed.entropy.request_id(),
            trace: deployed.entropy.trace(),
            arrived: now,
            remote: None,
            depth: 1,
            crowd: false,
        },
    };
    if call.depth > INTERNAL_DEPTH_MAX {
        return refuse(
            Kind::Conflict,
            format!("functions of {} call each other more than {INTERNAL_DEPTH_MAX} deep", deployed.id.app),
        );
    }
    let mut request = outbound::clean(request)?;
    // A function reads its authority from the URI; the header would be a second opinion.
    request.headers_mut().remove(header::HOST);
    // What only the node says: which route led here, and which trigger.
    let ours = request.headers().keys().filter(|name| name.as_str().starts_with("marram-"));
    for name in ours.cloned().collect::<Vec<_>>() {
        request.headers_mut().remove(name);
    }
    let id = call.request;
    // In a task of its own: this future is polled inside the caller's store, and wasmtime runs no store inside another.
    // It ends with the caller.
    let run = tokio::spawn(async move { callee.request(request, call).await });
    match AbortOnDropHandle::new(run).await {
        Ok(Ok(response)) => Ok(response),
        // What a network caller would see.
        Ok(Err(failure)) => Ok(problem::answer(&failure, id).map(full_body)),
        Err(error) => {
            Err(SendError::Internal(Failure::new(Kind::Internal, "the called function was stopped").because(error)))
        }
    }
}

fn timeouts(options: Option<RequestOptions>) -> Timeouts {
    let usual = Timeouts::default();
    let asked = options.unwrap_or_default();
    Timeouts {
        connect: asked.connect_timeout.unwrap_or(usual.connect),
        first_byte: asked.first_byte_timeout.unwrap_or(usual.first_byte),
        between_bytes: asked.between_bytes_timeout.unwrap_or(usual.between_bytes),
    }
}
