//! Bodies in chunks (`aws-chunked`). s3s holds a chunk in memory until all of it is there, and some SDKs send a content of any
//! size as one: chunks that nobody signed are cut here into as many as they come in, and signed ones may not be large.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame};
use s3s::StdError;

/// Bytes of the line before a chunk: a size, and a signature.
const LINE_BYTES_MAX: usize = 128;

/// A body in chunks, none of which is large.
pub(crate) struct Chunks<B> {
    body: B,
    /// Bytes of a signed chunk.
    signed_max: u64,
    state: State,
    /// What is handed on next.
    ready: VecDeque<Bytes>,
}

enum State {
    /// In the line before a chunk; this much of it has come.
    Line(Vec<u8>),
    /// In a chunk that nobody signed; so many bytes are to come.
    Unsigned(u64),
    /// Past its bytes, where its line ends; so many bytes of that have come.
    End(usize),
    /// In a signed chunk; so many bytes are to come, the end of its line included.
    Signed(u64),
    /// Past the last chunk.
    Trailers,
}

/// What is wrong with a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadChunk {
    Malformed,
    TooLarge,
}

/// What [`BadChunk::TooLarge`] says.
pub(crate) const TOO_LARGE: &str = "a signed chunk is too large: send chunks of 1 MiB or less";

impl fmt::Display for BadChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "a chunk does not begin or end as it should",
            Self::TooLarge => TOO_LARGE,
        })
    }
}

impl std::error::Error for BadChunk {}

/// Whether s3s will take the body apart.
pub(crate) fn come_in(headers: &HeaderMap) -> bool {
    let is_streamed = |value: &http::HeaderValue| value.as_bytes().starts_with(b"STREAMING-");
    // In an URL that is signed beforehand, nothing is said of the body.
    headers.contains_key(http::header::AUTHORIZATION) && headers.get_all("x-amz-content-sha256").iter().any(is_streamed)
}

impl<B> Chunks<B> {
    pub(crate) const fn new(body: B, signed_max: u64) -> Self {
        Self { body, signed_max, state: State::Line(Vec::new()), ready: VecDeque::new() }
    }

    fn take(&mut self, mut bytes: Bytes) -> Result<(), BadChunk> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Line(line) => {
                    let end = bytes.iter().position(|byte| *byte == b'\n');
                    line.extend_from_slice(&bytes.split_to(end.map_or(bytes.len(), |end| end + 1)));
                    if line.len() > LINE_BYTES_MAX {
                        return Err(BadChunk::Malformed);
                    }
                    if end.is_some() {
                        let line = std::mem::take(line);
                        self.begin(line)?;
                    }
                }
                State::Unsigned(left) => {
                    let piece = split(&mut bytes, left);
                    let line = format!("{:x}\r\n", piece.len());
                    if *left == 0 {
                        self.state = State::End(0);
                    }
                    self.ready.extend([line.into(), piece, Bytes::from_static(b"\r\n")]);
                }
                State::End(seen) => {
                    if bytes.get_u8() != b"\r\n"[*seen] {
                        return Err(BadChunk::Malformed);
                    }
                    *seen += 1;
                    if *seen == 2 {
                        self.state = State::Line(Vec::new());
                    }
                }
                State::Signed(left) => {
                    self.ready.push_back(split(&mut bytes, left));
                    if *left == 0 {
                        self.state = State::Line(Vec::new());
                    }
                }
                State::Trailers => self.ready.push_back(std::mem::take(&mut bytes)),
            }
        }
        Ok(())
    }

    /// A chunk begins with this line.
    fn begin(&mut self, line: Vec<u8>) -> Result<(), BadChunk> {
        let (size, signed) = size_of(&line).ok_or(BadChunk::Malformed)?;
        if size > 0 && !signed {
            self.state = State::Unsigned(size);
            return Ok(());
        }
        if size > self.signed_max {
            return Err(BadChunk::TooLarge);
        }
        self.state = if size == 0 { State::Trailers } else { State::Signed(size + 2) };
        self.ready.push_back(line.into());
        Ok(())
    }
}

/// Takes up to `left` bytes, and counts them off.
fn split(bytes: &mut Bytes, left: &mut u64) -> Bytes {
    let length = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
    *left -= length as u64;
    bytes.split_to(length)
}

/// The size that a line says, in hexadecimal digits, and whether a signature follows.
fn size_of(line: &[u8]) -> Option<(u64, bool)> {
    let line = std::str::from_utf8(line.strip_suffix(b"\r\n")?).ok()?;
    let (size, signature) = line.split_once(';').map_or((line, None), |(size, rest)| (size, Some(rest)));
    let digits = size.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some((u64::from_str_radix(size, 16).ok().filter(|_| digits)?, signature.is_some()))
}

impl<B: Body<Data = Bytes, Error = StdError> + Unpin> Body for Chunks<B> {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                // A chunk that is cut off shows: what was announced of the content has not come.
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Ok(Ok(bytes))) => {
                    if let Err(bad) = self.take(bytes) {
                        return Poll::Ready(Some(Err(Box::new(bad))));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out of a body that comes in pieces of this length.
    fn passed(body: &[u8], piece: usize, signed_max: u64) -> Result<Vec<Bytes>, BadChunk> {
        let mut chunks = Chunks::new((), signed_max);
        for piece in body.chunks(piece) {
            chunks.take(Bytes::copy_from_slice(piece))?;
        }
        Ok(chunks.ready.into())
    }

    const SIGNED: &[u8] =
        b"4;chunk-signature=ab\r\n1234\r\n1;chunk-signature=cd\r\n5\r\n0;chunk-signature=ef\r\na:b\r\n\r\n";

    #[test]
    fn chunks_that_nobody_signed_are_cut_to_what_has_come() {
        let body = b"a\r\n0123456789\r\n2\r\n\r\n\r\n0\r\na:b\r\n\r\n";
        assert_eq!(passed(body, 1_000, 0).unwrap().concat(), body);
        for piece in 1..body.len() {
            let mut whole = Chunks::new((), 0);
            whole.take(passed(body, piece, 0).unwrap().concat().into()).unwrap();
            // The content and the trailers are the same: lines and ends of lines are what is left out here.
            let frames: Vec<_> = whole.ready.iter().collect();
            let last = frames.iter().position(|frame| &frame[..] == b"0\r\n").unwrap();
            let content: Vec<_> = frames[..last].chunks(3).flat_map(|chunk| chunk[1].to_vec()).collect();
            assert_eq!(content, b"0123456789\r\n", "in pieces of {piece}");
            assert_eq!(&frames[last + 1][..], b"a:b\r\n\r\n");
        }
        // Nothing waits for the rest of a chunk, however large it is said to be.
        let begun = passed(b"ffffffffff\r\n0123", 1_000, 0).unwrap();
        assert_eq!(begun.concat(), b"4\r\n0123\r\n");
    }

    #[test]
    fn signed_chunks_pass_as_they_are_and_may_not_be_large() {
        for piece in 1..SIGNED.len() {
            assert_eq!(passed(SIGNED, piece, 4).unwrap().concat(), SIGNED, "in pieces of {piece}");
        }
        assert_eq!(passed(SIGNED, 1_000, 3).unwrap_err(), BadChunk::TooLarge);
        assert_eq!(passed(b"ffffffffffffffff;chunk-signature=ab\r\n", 1_000, 1 << 20).unwrap_err(), BadChunk::TooLarge);
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        let long = [b'0'; LINE_BYTES_MAX + 1];
        for bad in [
            &b"4\n"[..],
            b"\r\n",
            b";\r\n",
            b"+4\r\n",
            b"x\r\n",
            b"10000000000000000\r\n",
            b"1\r\nab",
            b"1\r\na\rb",
            &long,
        ] {
            assert_eq!(passed(bad, 1_000, 9).unwrap_err(), BadChunk::Malformed, "{bad:?}");
        }
    }

    #[test]
    fn only_bodies_that_are_taken_apart_are_in_chunks() {
        let headers = |authorization: bool, body: &'static str| {
            let mut headers = HeaderMap::new();
            if authorization {
                headers.insert("authorization", http::HeaderValue::from_static("AWS4-HMAC-SHA256 x"));
            }
            headers.insert("x-amz-content-sha256", http::HeaderValue::from_static(body));
            headers
        };
        assert!(come_in(&headers(true, "STREAMING-UNSIGNED-PAYLOAD-TRAILER")));
        assert!(come_in(&headers(true, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")));
        assert!(!come_in(&headers(true, "UNSIGNED-PAYLOAD")));
        assert!(!come_in(&headers(false, "STREAMING-UNSIGNED-PAYLOAD-TRAILER")));
    }
}
