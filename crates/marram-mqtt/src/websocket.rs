//! MQTT over WebSockets (MQTT 5.0 §6): binary frames are the stream, whatever their borders.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::limits::WRITE_BYTES;
use crate::listen::Origins;

/// Bytes of a frame: nothing is sent that needs more at once, and packets may be in parts.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes that are read at once; each connection keeps a buffer of this size.
const READ_BUFFER_BYTES: usize = 4 << 10;

/// A WebSocket as a stream of bytes.
pub(crate) struct WebSocket<S> {
    inner: WebSocketStream<S>,
    /// Of the last frame.
    read: Bytes,
}

/// Answers the client's hello, which has to offer the subprotocol `mqtt`, and to come from a page that may connect.
pub(crate) async fn accept<S>(stream: S, origins: &Origins) -> io::Result<WebSocket<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * WRITE_BYTES)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX));
    #[expect(clippy::result_large_err, reason = "the library's callback has this type")]
    let answer = |request: &Request, response| match foreign(request, origins) {
        Some(refused) => Err(refused),
        None => choose(request, response),
    };
    let inner = tokio_tungstenite::accept_hdr_async_with_config(stream, answer, Some(config)).await.map_err(failed)?;
    Ok(WebSocket { inner, read: Bytes::new() })
}

/// The refusal of a page that may not connect.
fn foreign(request: &Request, origins: &Origins) -> Option<ErrorResponse> {
    let origin = request.headers().get(header::ORIGIN)?.to_str().unwrap_or("?");
    let why = || format!("this broker does not answer to pages of {origin}: name it in `origins` below `[mqtt]`\n");
    (!origins.admit(origin)).then(|| refusal(StatusCode::FORBIDDEN, why()))
}

fn refusal(status: StatusCode, text: String) -> ErrorResponse {
    let mut refusal = ErrorResponse::new(Some(text));
    *refusal.status_mut() = status;
    refusal
}

#[expect(clippy::result_large_err, reason = "the library's callback has this type")]
fn choose(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let offers = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let offered = offers.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    // 3.1 clients call it mqttv3.1.
    let Some(chosen) = offered.map(str::trim).find(|name| ["mqtt", "mqttv3.1"].contains(name)) else {
        return Err(refusal(StatusCode::BAD_REQUEST, "offer the subprotocol mqtt\n".into()));
    };
    let chosen = if chosen == "mqtt" { "mqtt" } else { "mqttv3.1" };
    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen));
    Ok(response)
}

fn failed(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.read.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_next(ctx)) {
                Some(Ok(Message::Binary(bytes))) => self.read = bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::AlreadyClosed)) | None => {
                    return Poll::Ready(Ok(()));
                }
                Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "MQTT is in binary frames")));
                }
                Some(Err(error)) => return Poll::Ready(Err(failed(error))),
            }
        }
        let bytes = self.read.len().min(to.remaining());
        to.put_slice(&self.read[..bytes]);
        self.read.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.inner).poll_ready(ctx)).map_err(failed)?;
        let bytes = from.len().min(WRITE_BYTES);
        let frame = Message::Binary(Bytes::copy_from_slice(&from[..bytes]));
        Pin::new(&mut self.inner).start_send(frame).map_err(failed)?;
        Poll::Ready(Ok(bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(ctx).map_err(failed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(ctx).map_err(failed)
    }
}
