//! MQTT over WebSockets (MQTT 5.0 §6): binary frames are the stream, whatever their borders.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use futures::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse as _;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response, create_response, write_response};
use tokio_tungstenite::tungstenite::http::uri::Authority;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::connection::linger;
use crate::limits::WRITE_BYTES;
use crate::listen::Origins;

/// Bytes of the client's hello: pages send their cookies along.
const HELLO_BYTES_MAX: usize = 16 << 10;
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

/// Answers the client's hello, which has to offer the subprotocol `mqtt`, and to come from a page that may connect. The
/// library has no answer for a hello that is none (RFC 6455 §4.2.2), so that only its parts are used.
pub(crate) async fn accept<S>(mut stream: S, origins: &Origins) -> io::Result<WebSocket<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answered = hello(&mut stream).await?.and_then(|request| answer(&request, origins));
    let response = match answered {
        Ok(response) => response,
        Err(refusal) => {
            stream.write_all(refusal.to_http().as_bytes()).await?;
            linger(&mut stream).await;
            return Err(io::Error::new(io::ErrorKind::InvalidData, refusal.why));
        }
    };
    let mut bytes = Vec::new();
    write_response(&mut bytes, &response).map_err(failed)?;
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * WRITE_BYTES)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX));
    let inner = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    Ok(WebSocket { inner, read: Bytes::new() })
}

/// Why there will be no WebSocket.
struct Refusal {
    status: StatusCode,
    why: String,
}

impl Refusal {
    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }

    /// The whole answer.
    fn to_http(&self) -> String {
        let Self { status, why } = self;
        // What would be taken instead (RFC 9110 §15.5.22, RFC 6455 §4.4).
        let connection = match *status {
            StatusCode::UPGRADE_REQUIRED => "upgrade, close\r\nupgrade: websocket\r\nsec-websocket-version: 13",
            _ => "close",
        };
        let bytes = why.len() + 1;
        format!(
            "HTTP/1.1 {status}\r\nconnection: {connection}\r\ncontent-type: text/plain; charset=utf-8\r\n\
             content-length: {bytes}\r\n\r\n{why}\n"
        )
    }
}

/// The client's hello, or why it is none.
async fn hello<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Result<Request, Refusal>> {
    let mut bytes = BytesMut::with_capacity(READ_BUFFER_BYTES);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let refusal = match Request::try_parse(&bytes) {
            Ok(None) if bytes.len() < HELLO_BYTES_MAX => continue,
            Ok(None) => {
                Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's head has more than 16 KiB")
            }
            Ok(Some((head, request))) if head == bytes.len() => return Ok(Ok(request)),
            Ok(Some(_)) => Refusal::new(StatusCode::BAD_REQUEST, "something follows the request before it is answered"),
            Err(error) => no_hello(&error),
        };
        return Ok(Err(refusal));
    }
}

fn no_hello(error: &Error) -> Refusal {
    use ProtocolError::{
        MissingConnectionUpgradeHeader, MissingSecWebSocketVersionHeader, MissingUpgradeWebSocketHeader,
    };
    match error {
        Error::Protocol(
            MissingConnectionUpgradeHeader | MissingUpgradeWebSocketHeader | MissingSecWebSocketVersionHeader,
        ) => Refusal::new(StatusCode::UPGRADE_REQUIRED, "MQTT is spoken here, over a WebSocket of version 13"),
        error => Refusal::new(StatusCode::BAD_REQUEST, format!("this does not open a WebSocket: {error}")),
    }
}

fn answer(request: &Request, origins: &Origins) -> Result<Response, Refusal> {
    let response = create_response(request).map_err(|error| no_hello(&error))?;
    if let Some(origin) = request.headers().get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or("?");
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        if !origins.admit(origin) && !host.is_some_and(|host| is_own(origin, host)) {
            let why = format!("this broker does not answer to pages of {origin}: name it in `origins` below `[mqtt]`");
            return Err(Refusal::new(StatusCode::FORBIDDEN, why));
        }
    }
    choose(request, response)
}

/// Whether a client says the origin of this very server, as clients do that are no browsers. Where the server is named
/// by a DNS name it could be a page of elsewhere, whose name has been made to lead here (DNS rebinding).
fn is_own(origin: &str, host: &str) -> bool {
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    let is_fixed = Authority::try_from(host).is_ok_and(|authority| {
        let name = authority.host();
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
    });
    is_fixed && authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

fn choose(request: &Request, mut response: Response) -> Result<Response, Refusal> {
    let offers = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let offered = offers.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    // 3.1 clients call it mqttv3.1.
    let Some(chosen) = offered.map(str::trim).find(|name| ["mqtt", "mqttv3.1"].contains(name)) else {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "offer the subprotocol mqtt"));
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

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// The client breaks the rules: it is told which kind of them, with the end of the stream (RFC 6455 §7.1.7).
    fn fail(&mut self, code: CloseCode, error: io::Error) -> Poll<io::Result<()>> {
        let close = CloseFrame { code, reason: "".into() };
        // One that is gone is told nothing.
        let _ = Pin::new(&mut self.inner).start_send(Message::Close(Some(close)));
        Poll::Ready(Err(error))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.read.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_next(ctx)) {
                Some(Ok(Message::Binary(bytes))) => self.read = bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                // The library's answer to a Close goes out with the end of the stream.
                Some(Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::AlreadyClosed)) | None => {
                    return Poll::Ready(Ok(()));
                }
                Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, "MQTT is in binary frames");
                    return self.fail(CloseCode::Unsupported, error);
                }
                Some(Err(error @ Error::Protocol(_))) => return self.fail(CloseCode::Protocol, failed(error)),
                Some(Err(error @ Error::Capacity(_))) => return self.fail(CloseCode::Size, failed(error)),
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
