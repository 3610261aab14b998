//! What stands at `/v1/streams/<stream>/events` of the public front, for a stream that says `ingest = true`: it stores
//! CloudEvents that come with the stream's token, and answers once they are on the disk.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use marram_core::limits::PUBLISH_BYTES_MAX;
use marram_core::port::{Body, Call, Invoke, Streams, full_body};
use marram_core::stream::StreamName;
use marram_core::{Failure, FunctionId, Kind};

use crate::{Token, events};

/// The way into one stream.
pub(crate) struct Ingest {
    id: Arc<FunctionId>,
    stream: StreamName,
    streams: Arc<dyn Streams>,
    /// Whoever shows one of these may publish; nobody, if there is none.
    tokens: Vec<Token>,
}

impl Ingest {
    pub(crate) fn new(id: FunctionId, stream: StreamName, streams: Arc<dyn Streams>, tokens: Vec<Token>) -> Arc<Self> {
        Arc::new(Self { id: Arc::new(id), stream, streams, tokens })
    }

    pub(crate) fn stream(&self) -> &StreamName {
        &self.stream
    }

    /// This one, which takes the tokens of another into the same stream as well.
    pub(crate) fn with(&self, other: &Self) -> Arc<Self> {
        let tokens = self.tokens.iter().chain(&other.tokens).cloned().collect();
        let (id, stream, streams) = (Arc::clone(&self.id), self.stream.clone(), Arc::clone(&self.streams));
        Arc::new(Self { id, stream, streams, tokens })
    }

    async fn take(&self, request: http::Request<Body>, call: Call) -> Result<http::Response<Body>, Failure> {
        let (parts, body) = request.into_parts();
        self.check(&parts.headers)?;
        let events = events::read(&parts.headers, gather(body).await?, Some(&call.trace))?;
        let published = self.streams.publish(&self.stream, events).await?;
        let answer = serde_json::to_vec(&events::published(&published)).expect("numbers are JSON");
        let mut response = http::Response::new(full_body(answer));
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        Ok(response)
    }

    fn check(&self, headers: &http::HeaderMap) -> Result<(), Failure> {
        match events::bearer(headers) {
            Some(shown) if self.tokens.iter().any(|known| known.is(shown)) => Ok(()),
            Some(_) => Err(Failure::new(Kind::Unauthorized, "this is not the token of this stream")),
            None => Err(Failure::new(
                Kind::Unauthorized,
                "events are taken with the stream's token only: send it as `Authorization: Bearer …`",
            )),
        }
    }
}

async fn gather(body: Body) -> Result<Bytes, Failure> {
    let gathered = Limited::new(body, PUBLISH_BYTES_MAX).collect().await;
    gathered.map(http_body_util::Collected::to_bytes).map_err(|error| match error.downcast::<Failure>() {
        Ok(failure) => *failure,
        Err(error) if error.is::<LengthLimitError>() => {
            Failure::new(Kind::BodyTooLarge, format!("the events have more than {PUBLISH_BYTES_MAX} bytes: send fewer"))
        }
        Err(error) => Failure::new(Kind::ClientGone, "the body broke off").because(error),
    })
}

impl Invoke for Ingest {
    fn id(&self) -> &Arc<FunctionId> {
        &self.id
    }

    fn request(
        &self,
        request: http::Request<Body>,
        call: Call,
    ) -> BoxFuture<'_, Result<http::Response<Body>, Failure>> {
        Box::pin(self.take(request, call))
    }
}
