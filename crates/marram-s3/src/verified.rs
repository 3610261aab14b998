//! The body of a delete of several objects. s3s gathers it without a look at the digests that came along, and leaves out of
//! a name what stands in `<![CDATA[`: another object than the client meant would be deleted. So the body is summed up as it
//! passes, and fails before it is whole.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use http_body::{Body, Frame, SizeHint};
use s3s::crypto::{Checksum as _, Md5};
use s3s::{S3Error, S3Result, StdError, s3_error};

use crate::checksum::{self, Summing};
use crate::{chunks, objects, query};

const CDATA: &[u8] = b"<![CDATA[";

/// What the digests of a body have to be.
pub(crate) struct Digests {
    checksum: Summing,
    md5: Option<([u8; 16], Md5)>,
}

impl Digests {
    /// Those that the head announces; `None` where the body is not that of a delete.
    pub(crate) fn of(method: &Method, uri: &Uri, headers: &HeaderMap) -> S3Result<Option<Self>> {
        if *method != Method::POST || !query::pairs(uri).iter().any(|(name, _)| name == "delete") {
            return Ok(None);
        }
        if chunks::come_in(headers) {
            return Err(s3_error!(
                NotImplemented,
                "a delete of several objects does not come in chunks: send it whole"
            ));
        }
        let checksum = Summing::of(&checksum::announced(uri, headers), None, headers)?;
        let md5 = headers.get("content-md5").map(|value| objects::md5(Some(value.to_str().unwrap_or_default())));
        let md5 = md5.transpose()?.flatten().map(|expected| (expected, Md5::new()));
        Ok(Some(Self { checksum, md5 }))
    }

    fn update(&mut self, bytes: &[u8]) {
        self.checksum.update(bytes);
        if let Some((_, sum)) = &mut self.md5 {
            sum.update(bytes);
        }
    }

    fn finish(self) -> S3Result<()> {
        if let Some((expected, sum)) = self.md5
            && sum.finalize() != expected
        {
            return Err(s3_error!(BadDigest, "the MD5 digest of the body is not what Content-MD5 says"));
        }
        self.checksum.finish(None).map(|_| ())
    }
}

/// Why a body was refused: s3s does not say so in its answer.
#[derive(Clone, Default)]
pub(crate) struct Fault(Arc<Mutex<Option<S3Error>>>);

impl Fault {
    fn set(&self, error: S3Error) -> StdError {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        "the body is not what was announced".into()
    }

    pub(crate) fn take(&self) -> Option<S3Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A body that fails if it is not what its head announced.
pub(crate) struct Verified<B> {
    body: B,
    /// Until they were compared.
    digests: Option<Digests>,
    /// The last bytes, with which a `<![CDATA[` may begin.
    tail: Vec<u8>,
    fault: Fault,
}

impl<B> Verified<B> {
    pub(crate) const fn new(body: B, digests: Digests, fault: Fault) -> Self {
        Self { body, digests: Some(digests), tail: Vec::new(), fault }
    }

    fn pass(&mut self, bytes: &[u8]) -> S3Result<()> {
        if let Some(digests) = &mut self.digests {
            digests.update(bytes);
        }
        self.tail.extend_from_slice(bytes);
        if self.tail.windows(CDATA.len()).any(|window| window == CDATA) {
            return Err(s3_error!(MalformedXML, "a name cannot stand in <![CDATA[: write & as &amp; and < as &lt;"));
        }
        self.tail.drain(..self.tail.len().saturating_sub(CDATA.len() - 1));
        Ok(())
    }

    /// Compares the digests, once.
    fn end(&mut self) -> S3Result<()> {
        self.digests.take().map_or(Ok(()), Digests::finish)
    }
}

impl<B: Body<Data = Bytes, Error = StdError> + Unpin> Body for Verified<B> {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            Some(Ok(frame)) => Some(frame),
            None => None,
        };
        let passed = frame.as_ref().and_then(Frame::data_ref).map_or(Ok(()), |bytes| self.pass(bytes));
        // Whoever counts the bytes does not ask for more after the last.
        let is_last = frame.is_none() || self.body.is_end_stream();
        match passed.and_then(|()| if is_last { self.end() } else { Ok(()) }) {
            Ok(()) => Poll::Ready(frame.map(Ok)),
            Err(error) => Poll::Ready(Some(Err(self.fault.set(error)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.digests.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use http::{HeaderName, HeaderValue};

    use super::*;

    const BODY: &str = "<Delete><Object><Key>k</Key></Object></Delete>";

    /// What a body that comes in pieces of this length is refused for.
    fn refused(headers: &[(&'static str, &str)], body: &str, piece: usize) -> Option<String> {
        let header = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        let headers = headers.iter().map(header).collect();
        let uri = Uri::from_static("/b?delete");
        let passed = Digests::of(&Method::POST, &uri, &headers).and_then(|digests| {
            let mut verified = Verified::new((), digests.unwrap(), Fault::default());
            body.as_bytes().chunks(piece).try_for_each(|piece| verified.pass(piece))?;
            verified.end()
        });
        passed.err().map(|error| error.code().as_str().to_owned())
    }

    #[test]
    fn a_body_that_is_not_what_its_digests_say_is_refused() {
        let md5 = |text: &str| BASE64.encode(Md5::checksum(text.as_bytes()));
        let crc32 = |text: &str| BASE64.encode(s3s::crypto::Crc32::checksum(text.as_bytes()));
        let name = "x-amz-checksum-crc32";
        for piece in [1, 7, 1_000] {
            for (headers, expected) in [
                (vec![], None),
                (vec![("content-md5", md5(BODY))], None),
                (vec![("content-md5", md5("another"))], Some("BadDigest")),
                (vec![("content-md5", "none".to_owned())], Some("InvalidDigest")),
                (vec![(name, crc32(BODY))], None),
                (vec![(name, crc32("another"))], Some("BadDigest")),
                // That of nothing, which is a placeholder in an URL and nowhere else.
                (vec![(name, "AAAAAA==".to_owned())], Some("BadDigest")),
                (vec![("content-md5", md5(BODY)), (name, crc32("another"))], Some("BadDigest")),
                (vec![("x-amz-trailer", name.to_owned())], Some("MalformedTrailerError")),
            ] {
                let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                assert_eq!(refused(&headers, BODY, piece).as_deref(), expected, "{headers:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_name_that_would_be_left_out_is_found_wherever_a_piece_ends() {
        let body = BODY.replace(">k<", ">a<![CDATA[b]]><");
        for piece in 1..body.len() {
            assert_eq!(refused(&[], &body, piece).as_deref(), Some("MalformedXML"), "in pieces of {piece}");
        }
        assert_eq!(refused(&[], &BODY.replace(">k<", ">&lt;![CDATA[<"), 5), None);
    }

    #[test]
    fn only_a_delete_of_several_is_looked_at() {
        let of = |method: Method, uri: &str, headers: &HeaderMap| Digests::of(&method, &uri.parse().unwrap(), headers);
        let mut headers = HeaderMap::new();
        assert!(of(Method::POST, "/b?delete=", &headers).unwrap().is_some());
        assert!(of(Method::POST, "/b/k?uploads", &headers).unwrap().is_none());
        assert!(of(Method::GET, "/b?delete", &headers).unwrap().is_none());
        headers.insert("authorization", HeaderValue::from_static("AWS4-HMAC-SHA256 x"));
        headers.insert("x-amz-content-sha256", HeaderValue::from_static("STREAMING-UNSIGNED-PAYLOAD-TRAILER"));
        let refused = of(Method::POST, "/b?delete", &headers).err().unwrap();
        assert_eq!(refused.code().as_str(), "NotImplemented");
    }
}
