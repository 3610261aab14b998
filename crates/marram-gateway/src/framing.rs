//! Follows the framing of requests on an HTTP/1 connection, before hyper sees a byte of it.
//!
//! hyper parses; this only decides what may reach it: whole header sections that have one meaning. What servers and
//! proxies are known to read differently is refused, so that no request can hide in another (RFC 9112 §11.2): targets
//! that are neither path nor URL, bare LF, folded lines, spaces before a colon, both or several of the length fields, codings
//! other than `chunked`, loose chunk sizes. It never copies and never looks at a byte of a body, except at chunk boundaries.

use marram_core::Kind;
use memchr::memchr;

use crate::Limits;
use crate::request_line::{self, LINE_BESIDES_URI, TOKEN, URI_TOO_LONG};

/// Why bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) kind: Kind,
    pub(crate) message: &'static str,
    /// Whether it happened within a body: then its request is under way already.
    pub(crate) in_body: bool,
}

/// What to do with some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fed {
    /// So many may be passed on. The rest is the start of a header section, to be fed again with what follows.
    pub(crate) pass: usize,
    /// Nothing may be passed on after these.
    pub(crate) refused: Option<Refusal>,
}

/// Where in the stream of requests a connection is.
#[derive(Debug)]
pub(crate) struct Framing {
    state: State,
    header_bytes: usize,
    headers: usize,
    uri_bytes: usize,
}

#[derive(Debug)]
enum State {
    Head(Head),
    /// So many bytes of the body are left.
    Length(u64),
    Chunked(Chunked),
}

/// A header section that is not complete, as offsets from its start.
#[derive(Debug, Default)]
struct Head {
    line: usize,
    scanned: usize,
    fields: usize,
    /// The request line was there; whether it says HTTP/1.1.
    version_11: Option<bool>,
    length: Option<u64>,
    chunked: bool,
}

#[derive(Debug)]
struct Chunked {
    at: ChunkAt,
    /// Of the chunk, while its size is read and its bytes pass.
    left: u64,
    /// Bytes of extensions and trailers of this body.
    extra: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkAt {
    Size { digits: u8 },
    Extension,
    SizeLf,
    Bytes,
    BytesCr,
    BytesLf,
    LineStart,
    Line,
    LineLf,
    EndLf,
}

/// A kind of failure and what the client is told.
pub(crate) type Refused = (Kind, &'static str);

impl Framing {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            state: State::Head(Head::default()),
            header_bytes: limits.header_bytes,
            headers: limits.headers,
            uri_bytes: limits.uri_bytes,
        }
    }

    /// Whether the connection is between two requests.
    pub(crate) fn between_requests(&self) -> bool {
        matches!(&self.state, State::Head(head) if head.scanned == 0)
    }

    /// Whether a request's body, its trailers included, has not ended.
    pub(crate) fn in_body(&self) -> bool {
        !matches!(self.state, State::Head(_))
    }

    /// Follows `input`, which starts with what the last call did not pass on.
    pub(crate) fn feed(&mut self, input: &[u8]) -> Fed {
        let mut pass = 0;
        while pass < input.len() {
            let rest = &input[pass..];
            let (taken, next) = match &mut self.state {
                State::Head(head) => match head.scan(rest, self.header_bytes, self.headers, self.uri_bytes) {
                    Ok(None) => return Fed { pass, refused: None },
                    Ok(Some(end)) => (end, Some(head.body())),
                    Err((kind, message)) => {
                        return Fed { pass, refused: Some(Refusal { kind, message, in_body: false }) };
                    }
                },
                State::Length(left) => {
                    let taken = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= taken as u64;
                    (taken, (*left == 0).then(State::head))
                }
                State::Chunked(chunked) => match chunked.scan(rest, self.header_bytes) {
                    Ok((taken, done)) => (taken, done.then(State::head)),
                    Err((kind, message)) => {
                        return Fed { pass, refused: Some(Refusal { kind, message, in_body: true }) };
                    }
                },
            };
            pass += taken;
            if let Some(next) = next {
                self.state = next;
            }
        }
        Fed { pass, refused: None }
    }
}

impl State {
    fn head() -> Self {
        Self::Head(Head::default())
    }
}

impl Head {
    /// The length of the section, if all of it is in `input`.
    fn scan(
        &mut self,
        input: &[u8],
        bytes_max: usize,
        fields_max: usize,
        uri_max: usize,
    ) -> Result<Option<usize>, Refused> {
        while let Some(found) = memchr(b'\n', &input[self.scanned..]) {
            let end = self.scanned + found;
            let line = input[self.line..end].strip_suffix(b"\r").ok_or(BARE_LF)?;
            if end >= bytes_max {
                return Err(self.too_large(line.len(), uri_max));
            }
            (self.line, self.scanned) = (end + 1, end + 1);
            match (self.version_11, line) {
                (None, []) => {} // RFC 9112 §2.2: an empty line before a request is ignored.
                (None, line) => self.version_11 = Some(request_line::parse(line, uri_max)?),
                (Some(_), []) => return self.end().map(|()| Some(self.scanned)),
                (Some(version_11), line) => {
                    self.fields += 1;
                    if self.fields > fields_max {
                        return Err((Kind::HeadersTooLarge, "there are too many header fields"));
                    }
                    self.field(line, version_11)?;
                }
            }
        }
        self.scanned = input.len();
        if self.version_11.is_none() && input.len() - self.line > uri_max + LINE_BESIDES_URI {
            return Err(URI_TOO_LONG);
        }
        if input.len() > bytes_max { Err(self.too_large(0, uri_max)) } else { Ok(None) }
    }

    fn too_large(&self, line: usize, uri_max: usize) -> Refused {
        let in_request_line = self.version_11.is_none() && line > uri_max;
        if in_request_line { URI_TOO_LONG } else { (Kind::HeadersTooLarge, "the header section is too large") }
    }

    fn field(&mut self, line: &[u8], version_11: bool) -> Result<(), Refused> {
        let colon = line.iter().position(|b| !TOKEN[usize::from(*b)]).unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        if name.is_empty() && matches!(line[0], b' ' | b'\t') {
            return Err((Kind::BadRequest, "a header line is folded"));
        }
        let Some(value) = value.strip_prefix(b":").filter(|_| !name.is_empty()) else {
            return Err((Kind::BadRequest, "a header line has no valid name"));
        };
        // Without an early exit, so that it runs over many bytes at once.
        if value.iter().fold(false, |bad, b| bad | (*b < b' ' && *b != b'\t') | (*b == 0x7f)) {
            return Err((Kind::BadRequest, "a header value has a control character"));
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            if self.length.is_some() {
                return Err((Kind::BadRequest, "content-length is there twice"));
            }
            self.length = Some(length(value.trim_ascii())?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if !version_11 || self.chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Err((Kind::BadRequest, "the only transfer-encoding is one `chunked`, in HTTP/1.1"));
            }
            self.chunked = true;
        }
        Ok(())
    }

    fn end(&self) -> Result<(), Refused> {
        if self.chunked && self.length.is_some() {
            return Err((Kind::BadRequest, "content-length and transfer-encoding contradict each other"));
        }
        Ok(())
    }

    /// What follows the section.
    fn body(&self) -> State {
        match self.length {
            _ if self.chunked => State::Chunked(Chunked { at: ChunkAt::Size { digits: 0 }, left: 0, extra: 0 }),
            Some(length) if length > 0 => State::Length(length),
            _ => State::head(),
        }
    }
}

impl Chunked {
    /// How many bytes belong to the body, and whether it ends with them.
    fn scan(&mut self, input: &[u8], extra_max: usize) -> Result<(usize, bool), Refused> {
        let mut at = 0;
        while let Some(byte) = input.get(at) {
            if self.at == ChunkAt::Bytes {
                let taken = (input.len() - at).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= taken as u64;
                at += taken;
                if self.left == 0 {
                    self.at = ChunkAt::BytesCr;
                }
                continue;
            }
            at += 1;
            if (self.at, *byte) == (ChunkAt::EndLf, b'\n') {
                return Ok((at, true));
            }
            self.at = self.step(*byte)?;
            if self.extra > extra_max {
                return Err((Kind::HeadersTooLarge, "chunk extensions or trailers are too large"));
            }
        }
        Ok((at, false))
    }

    fn step(&mut self, byte: u8) -> Result<ChunkAt, Refused> {
        Ok(match (self.at, byte) {
            (ChunkAt::Size { digits }, byte) if byte.is_ascii_hexdigit() && digits < 15 => {
                let digit = (byte as char).to_digit(16).expect("it is a hex digit");
                self.left = (self.left << 4) | u64::from(digit);
                ChunkAt::Size { digits: digits + 1 }
            }
            (ChunkAt::Size { digits: 1.. }, b'\r') => ChunkAt::SizeLf,
            (ChunkAt::Size { digits: 1.. }, b';') => ChunkAt::Extension,
            (ChunkAt::Size { .. }, _) => return Err((Kind::BadRequest, "a chunk size is not a hex number")),
            (ChunkAt::Extension, b'\r') => ChunkAt::SizeLf,
            (ChunkAt::SizeLf, b'\n') if self.left == 0 => ChunkAt::LineStart,
            (ChunkAt::SizeLf, b'\n') => ChunkAt::Bytes,
            (ChunkAt::BytesCr, b'\r') => ChunkAt::BytesLf,
            (ChunkAt::BytesLf, b'\n') => ChunkAt::Size { digits: 0 },
            (ChunkAt::BytesCr | ChunkAt::BytesLf, _) => {
                return Err((Kind::BadRequest, "a chunk is longer than its size"));
            }
            (ChunkAt::LineStart, b'\r') => ChunkAt::EndLf,
            (ChunkAt::LineStart, b' ' | b'\t') => return Err((Kind::BadRequest, "a trailer line is folded")),
            (ChunkAt::Line, b'\r') => ChunkAt::LineLf,
            (ChunkAt::LineLf, b'\n') => ChunkAt::LineStart,
            (at @ (ChunkAt::Extension | ChunkAt::LineStart | ChunkAt::Line), byte)
                if byte == b'\t' || (byte >= b' ' && byte != 0x7f) =>
            {
                self.extra += 1;
                if at == ChunkAt::Extension { at } else { ChunkAt::Line }
            }
            _ => return Err((Kind::BadRequest, "a line of a chunked body does not end in CR LF")),
        })
    }
}

const BARE_LF: Refused = (Kind::BadRequest, "a line ends in LF without CR");

fn length(digits: &[u8]) -> Result<u64, Refused> {
    let wrong = (Kind::BadRequest, "content-length is not a number");
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(wrong);
    }
    Ok(digits.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0')))
}
