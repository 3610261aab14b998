//! Header fields that belong to a connection and not to a message (RFC 9110 §7.6.1).

use http::header::{self, HeaderName};

/// Those of them that everybody knows; `connection` names others. The first five have constants in the crate `http`.
pub const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];
