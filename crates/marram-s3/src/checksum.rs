//! Checksums that clients send along: summed up while the bytes come, compared, and kept with the object.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crc_fast::CrcAlgorithm;
use http::{HeaderMap, StatusCode, Uri};
use marram_core::port::blobs::{Checksum, Part};
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Sha1, Sha256};
use s3s::{S3Error, S3ErrorCode, S3Result, TrailingHeaders, s3_error};

use crate::query;

/// Every algorithm: its name, and the end of its header's name.
const ALGORITHMS: [&str; 5] = ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"];

/// What a request says of its checksum: one of five fields, in the order of [`ALGORITHMS`].
pub(crate) type Said = [Option<String>; 5];

/// The five fields of an input or a part of s3s.
macro_rules! said {
    ($of:expr) => {
        [
            $of.checksum_crc32.clone(),
            $of.checksum_crc32c.clone(),
            $of.checksum_crc64nvme.clone(),
            $of.checksum_sha1.clone(),
            $of.checksum_sha256.clone(),
        ]
    };
}
pub(crate) use said;

/// Fills the five fields of an output.
macro_rules! say {
    ($checksum:expr, $output:expr) => {
        if let Some(checksum) = $checksum {
            let value = Some(checksum.value.clone());
            match checksum.algorithm.as_str() {
                "CRC32" => $output.checksum_crc32 = value,
                "CRC32C" => $output.checksum_crc32c = value,
                "CRC64NVME" => $output.checksum_crc64nvme = value,
                "SHA1" => $output.checksum_sha1 = value,
                "SHA256" => $output.checksum_sha256 = value,
                _ => {}
            }
        }
    };
}
pub(crate) use say;

/// A checksum that is being summed up, if one is asked for.
pub(crate) struct Summing {
    algorithm: Option<&'static str>,
    /// What it has to be, if the header said so.
    expected: Option<String>,
    /// Whether a trailer has to say so.
    trailing: bool,
    hasher: ChecksumHasher,
}

impl Summing {
    /// Sums up what the headers announce: a value, a trailer with one, or only an algorithm.
    pub(crate) fn of(said: &Said, algorithm: Option<&str>, headers: &HeaderMap) -> S3Result<Self> {
        let mut named = said.iter().enumerate().filter_map(|(n, value)| Some((ALGORITHMS[n], value.clone()?)));
        let first = named.next();
        if named.next().is_some() {
            return Err(s3_error!(InvalidRequest, "several checksums were sent: send one"));
        }
        let trailer = headers.get("x-amz-trailer").and_then(|value| value.to_str().ok());
        let trailer = trailer.and_then(|names| names.split(',').find_map(|name| of_header(name.trim())));
        let asked = algorithm.and_then(known);
        let (algorithm, expected) = match first {
            Some((algorithm, value)) => (Some(algorithm), Some(value)),
            None => (trailer.or(asked), None),
        };
        let trailing = expected.is_none() && trailer.is_some();
        Ok(Self { algorithm, expected, trailing, hasher: algorithm.map(hasher).unwrap_or_default() })
    }

    pub(crate) fn update(&mut self, chunk: &[u8]) {
        self.hasher.update(chunk);
    }

    /// The checksum, once all bytes and trailers are there. Fails if it is not the one that was announced, or if a trailer was
    /// announced and none came.
    pub(crate) fn finish(self, trailers: Option<&TrailingHeaders>) -> S3Result<Option<Checksum>> {
        let Some(algorithm) = self.algorithm else { return Ok(None) };
        let sum = self.hasher.finalize();
        let [value] = said!(sum).into_iter().flatten().collect::<Vec<_>>().try_into().unwrap_or_default();
        let header = header_of(algorithm);
        let trailer = || {
            trailers?.read(|headers| headers.get(&header).and_then(|value| value.to_str().ok().map(str::to_owned)))?
        };
        match self.expected.or_else(trailer) {
            Some(expected) if expected != value => {
                Err(s3_error!(BadDigest, "the {algorithm} checksum of the content is {value}, and not {expected}"))
            }
            None if self.trailing => Err(no_trailer(&header)),
            _ => Ok(Some(Checksum { algorithm: algorithm.to_owned(), value })),
        }
    }
}

/// A trailer that was announced and did not come: the content may be cut off, and nothing would show it.
fn no_trailer(header: &str) -> S3Error {
    let code = S3ErrorCode::Custom("MalformedTrailerError".into());
    let message = format!("the trailer {header} was announced, and did not come: send it after the last chunk");
    let mut error = S3Error::with_message(code, message);
    error.set_status_code(StatusCode::BAD_REQUEST);
    error
}

/// The checksum that is said, and its algorithm.
pub(crate) fn first(said: &Said) -> Option<(&'static str, &str)> {
    ALGORITHMS.into_iter().zip(said).find_map(|(algorithm, value)| Some((algorithm, value.as_deref()?)))
}

/// What the headers or the query say of the checksum of a body.
pub(crate) fn announced(uri: &Uri, headers: &HeaderMap) -> Said {
    let of = |algorithm| headers.get(header_of(algorithm)).and_then(|value| value.to_str().ok()).map(str::to_owned);
    or_in_query(ALGORITHMS.map(of), uri)
}

/// What the headers say of a checksum, or the query of an URL that was signed beforehand. An SDK that sums up the body there
/// before there is one says the checksum of nothing: that is none.
pub(crate) fn or_in_query(said: Said, uri: &Uri) -> Said {
    if said.iter().any(Option::is_some) {
        return said;
    }
    ALGORITHMS.map(|algorithm| {
        let nothing = hasher(algorithm).finalize();
        let nothing = said!(nothing).into_iter().flatten().next();
        query::hoisted_value(uri, &header_of(algorithm)).filter(|value| Some(value) != nothing.as_ref())
    })
}

fn header_of(algorithm: &str) -> String {
    format!("x-amz-checksum-{}", algorithm.to_ascii_lowercase())
}

/// The algorithm of this name.
pub(crate) fn known(name: &str) -> Option<&'static str> {
    ALGORITHMS.into_iter().find(|algorithm| algorithm.eq_ignore_ascii_case(name))
}

/// The algorithm of this header.
pub(crate) fn of_header(header: &str) -> Option<&'static str> {
    known(header.to_ascii_lowercase().strip_prefix("x-amz-checksum-")?)
}

fn hasher(algorithm: &'static str) -> ChecksumHasher {
    let mut hasher = ChecksumHasher::default();
    match algorithm {
        "CRC32" => hasher.crc32 = Some(Crc32::new()),
        "CRC32C" => hasher.crc32c = Some(Crc32c::new()),
        "CRC64NVME" => hasher.crc64nvme = Some(Crc64Nvme::new()),
        "SHA1" => hasher.sha1 = Some(Sha1::new()),
        _ => hasher.sha256 = Some(Sha256::new()),
    }
    hasher
}

/// The checksum of an object from those of its parts; `None` where not all of them have one of this algorithm. With
/// `full` it is that of the whole content, which only CRCs can be put together to; otherwise the checksum of the checksums, and
/// their number.
pub(crate) fn of_parts(algorithm: &'static str, full: bool, parts: &[Part]) -> Option<Checksum> {
    let sums: Option<Vec<Vec<u8>>> = parts.iter().map(|part| decoded(part, algorithm)).collect();
    let sums = sums?;
    let value = if full {
        let crc = match algorithm {
            "CRC32" => CrcAlgorithm::Crc32IsoHdlc,
            "CRC32C" => CrcAlgorithm::Crc32Iscsi,
            "CRC64NVME" => CrcAlgorithm::Crc64Nvme,
            _ => return None,
        };
        let number = |sum: &[u8]| sum.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        let combine =
            |left, (sum, part): (&Vec<u8>, &Part)| crc_fast::checksum_combine(crc, left, number(sum), part.size);
        let first = number(sums.first()?);
        let combined = sums.iter().zip(parts).skip(1).fold(first, combine);
        BASE64.encode(&combined.to_be_bytes()[8 - sums.first()?.len()..])
    } else {
        let mut hasher = hasher(algorithm);
        sums.iter().for_each(|sum| hasher.update(sum));
        let sum = hasher.finalize();
        format!("{}-{}", said!(sum).into_iter().flatten().next()?, parts.len())
    };
    Some(Checksum { algorithm: algorithm.to_owned(), value })
}

fn decoded(part: &Part, algorithm: &str) -> Option<Vec<u8>> {
    let checksum = part.checksum.as_ref().filter(|checksum| checksum.algorithm == algorithm)?;
    let sum = BASE64.decode(&checksum.value).ok()?;
    let length = if algorithm.starts_with("CRC32") {
        4
    } else if algorithm == "CRC64NVME" {
        8
    } else {
        sum.len()
    };
    (sum.len() == length).then_some(sum)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sum(algorithm: &'static str, bytes: &[u8]) -> Checksum {
        let mut summing = Summing::of(&Said::default(), Some(algorithm), &HeaderMap::new()).unwrap();
        summing.update(bytes);
        summing.finish(None).unwrap().unwrap()
    }

    /// The check values of the catalogue of parametrised CRC algorithms, and FIPS 180-4.
    #[test]
    fn sums_are_those_of_the_catalogue() {
        assert_eq!(sum("CRC32", b"123456789").value, BASE64.encode(0xcbf4_3926_u32.to_be_bytes()));
        assert_eq!(sum("CRC32C", b"123456789").value, BASE64.encode(0xe306_9283_u32.to_be_bytes()));
        assert_eq!(sum("CRC64NVME", b"123456789").value, BASE64.encode(0xae8b_1486_0a79_9888_u64.to_be_bytes()));
        assert_eq!(sum("SHA1", b"abc").value, "qZk+NkcGgWq6PiVxeFDCbJzQ2J0=");
        assert_eq!(sum("SHA256", b"abc").value, "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
    }

    #[test]
    fn a_full_checksum_of_parts_is_that_of_the_whole() {
        let halves: [&[u8]; 3] = [b"1234", b"", b"56789"];
        for algorithm in ["CRC32", "CRC32C", "CRC64NVME"] {
            let part = |(number, bytes): (u32, &&[u8])| Part {
                number,
                size: bytes.len() as u64,
                etag: String::new(),
                checksum: Some(sum(algorithm, bytes)),
                modified_unix_ns: 0,
            };
            let parts: Vec<_> = (1..).zip(&halves).map(part).collect();
            assert_eq!(of_parts(algorithm, true, &parts), Some(sum(algorithm, b"123456789")), "{algorithm}");
            assert!(of_parts(algorithm, false, &parts).unwrap().value.ends_with("-3"));
            assert_eq!(of_parts("SHA1", false, &parts), None);
        }
    }

    #[test]
    fn a_sum_in_a_signed_query_counts_unless_it_is_that_of_nothing() {
        let said = |query: &str, headers: &HeaderMap| {
            let uri = format!("/b/k?{query}").parse().unwrap();
            announced(&uri, headers).into_iter().flatten().collect::<Vec<_>>().join(" ")
        };
        let header = HeaderMap::from_iter([(
            http::HeaderName::from_static("x-amz-checksum-sha1"),
            http::HeaderValue::from_static("header"),
        )]);
        for (query, headers, expected) in [
            ("X-Amz-Signature=0&x-amz-checksum-crc32=y%2FQ5Jg%3D%3D", &HeaderMap::new(), "y/Q5Jg=="),
            ("X-Amz-Signature=0&x-amz-checksum-crc32=AAAAAA%3D%3D", &HeaderMap::new(), ""),
            ("x-amz-checksum-crc32=y%2FQ5Jg%3D%3D", &HeaderMap::new(), ""),
            ("X-Amz-Signature=0&x-amz-checksum-crc32=y%2FQ5Jg%3D%3D", &header, "header"),
            ("", &header, "header"),
        ] {
            assert_eq!(said(query, headers), expected, "{query}");
        }
    }

    #[test]
    fn a_wrong_sum_is_refused() {
        let said = [Some("AAAAAA==".to_owned()), None, None, None, None];
        let mut summing = Summing::of(&said, None, &HeaderMap::new()).unwrap();
        summing.update(b"abc");
        assert_eq!(summing.finish(None).unwrap_err().code().as_str(), "BadDigest");
    }

    /// Only a trailer that is awaited is missed: a value in a header, or an algorithm alone, needs none.
    #[test]
    fn a_trailer_that_was_announced_has_to_come() {
        let announced = HeaderMap::from_iter([(
            http::HeaderName::from_static("x-amz-trailer"),
            http::HeaderValue::from_static("x-other, x-amz-checksum-crc32"),
        )]);
        let header = [Some(sum("CRC32", b"abc").value), None, None, None, None];
        for (said, headers, missed) in [
            (&Said::default(), &announced, true),
            (&header, &announced, false),
            (&Said::default(), &HeaderMap::new(), false),
        ] {
            let mut summing = Summing::of(said, Some("CRC32"), headers).unwrap();
            summing.update(b"abc");
            let code = summing.finish(None).err().map(|error| error.code().as_str().to_owned());
            assert_eq!(code.as_deref(), missed.then_some("MalformedTrailerError"), "{said:?} {headers:?}");
        }
    }
}
