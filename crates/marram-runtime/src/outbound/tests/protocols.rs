//! HTTP/1.1, HTTP/2 and TLS on the wire.

use bytes::Bytes;
use futures::SinkExt as _;
use http::{HeaderMap, HeaderValue, Version};
use marram_core::port::full_body;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;

/// An authority and a server's certificate for `names` from it, on a server that offers these protocols.
pub(super) fn tls(names: &[&str], alpn: &[&str]) -> (CertificateDer<'static>, TlsAcceptor) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    (authority.der().clone(), TlsAcceptor::from(Arc::new(config)))
}

pub(super) fn trusting(root: CertificateDer<'static>) -> Outbound {
    let config = OutboundConfig { extra_roots: vec![root], ..OutboundConfig::default() };
    Outbound::with_lookup(config, everything_at(&["127.0.0.1"])).unwrap()
}

/// Gives back version, target and headers in headers, and the body and its trailers as they come.
async fn mirror(tls: Option<TlsAcceptor>) -> Server {
    Server::http(tls, |request, _| async move {
        let (head, body) = request.into_parts();
        let mut response = Response::new(body.map_err(|error| panic!("{error}")).boxed_unsync());
        let seen = format!("{:?} {:?} {}", head.version, head.method, head.uri);
        response.headers_mut().insert("seen", HeaderValue::try_from(seen).unwrap());
        let mut names: Vec<_> =
            head.headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
        names.sort();
        response.headers_mut().insert("seen-headers", HeaderValue::try_from(names.join(";")).unwrap());
        response.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
        response
    })
    .await
}

#[tokio::test]
async fn http1_says_what_it_has_to() {
    let server = mirror(None).await;
    let request = Request::post(server.url("/a?b=c"))
        .header("host", "evil.example")
        .header("connection", "x-private")
        .header("x-private", "1")
        .header("te", "trailers")
        .body(full_body("abc"))
        .unwrap();
    let response = send(&outbound(), &open_grant(&server), request).await.unwrap();
    assert_eq!(response.headers()["seen"], "HTTP/1.1 POST /a?b=c");
    let expected = format!("connection=te;content-length=3;host={};te=trailers", server.at);
    assert_eq!(response.headers()["seen-headers"], expected.as_str());
    assert!(!response.headers().contains_key("transfer-encoding"));
    assert_eq!(text(response).await, "abc");
}

#[tokio::test]
async fn tls_and_alpn() {
    for (alpn, expected) in
        [(&["h2", "http/1.1"][..], Version::HTTP_2), (&["http/1.1"], Version::HTTP_11), (&[], Version::HTTP_11)]
    {
        let (root, acceptor) = tls(&["a.example", "127.0.0.1"], alpn);
        let server = mirror(Some(acceptor)).await;
        for host in ["a.example", "127.0.0.1"] {
            let url = server.named("https", host);
            let request = Request::post(&url).header("connection", "close").body(full_body("abc")).unwrap();
            let response = send(&trusting(root.clone()), &open_grant(&server), request).await.unwrap();
            assert_eq!(response.version(), expected);
            let target = if expected == Version::HTTP_2 { url.as_str() } else { "/" };
            assert_eq!(response.headers()["seen"], format!("{expected:?} POST {target}").as_str());
            assert_eq!(text(response).await, "abc");
        }
    }
}

#[tokio::test]
async fn certificates_are_checked() {
    let (root, acceptor) = tls(&["a.example"], &["h2"]);
    let server = mirror(Some(acceptor)).await;
    let grant = open_grant(&server);
    let untrusted = outbound_with(everything_at(&["127.0.0.1"]));
    for (out, host) in
        [(&untrusted, "a.example"), (&trusting(root.clone()), "b.example"), (&trusting(root), "127.0.0.1")]
    {
        let error = send(out, &grant, get(&server.named("https", host))).await.unwrap_err();
        assert!(
            matches!(&error, OutboundError::Tls { fault: TlsFault::Certificate, host: named, .. } if named == host),
            "{error}"
        );
    }
    // A server that speaks no TLS.
    let plain = Server::raw(|socket, _| async move {
        socket.writable().await.unwrap();
        socket.try_write(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    })
    .await;
    let error = send(&untrusted, &open_grant(&plain), get(&plain.named("https", "a.example"))).await.unwrap_err();
    assert!(matches!(error, OutboundError::Tls { fault: TlsFault::Protocol, .. }), "{error}");
    assert_eq!(
        Outbound::new(OutboundConfig { extra_roots: vec![vec![1, 2, 3].into()], ..Default::default() })
            .err()
            .map(|e| e.to_string()),
        Some("extra root 1 of outbound TLS is not a CA certificate".to_owned())
    );
}

#[tokio::test]
async fn bodies_and_trailers_stream_both_ways_at_once() {
    let (root, acceptor) = tls(&["a.example"], &["h2"]);
    for acceptor in [None, Some(acceptor)] {
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let server = mirror(acceptor).await;
        let (mut sender, body) = channel_body();
        let request = Request::post(server.named(scheme, "a.example"))
            .header("te", "trailers")
            .header("trailer", "x-sum")
            .body(body)
            .unwrap();
        let (out, grant) = (trusting(root.clone()), open_grant(&server));
        let (response, sent) = tokio::join!(send(&out, &grant, request), sender.send(data("ping 0")));
        sent.unwrap();
        let mut body = response.unwrap().into_body();
        // Each part is back before the next one is sent.
        for at in 1..=3 {
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(frame, format!("ping {}", at - 1));
            sender.send(data(&format!("ping {at}"))).await.unwrap();
        }
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ping 3");
        let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), HeaderValue::from_static("42"))]);
        sender.send(Ok(http_body::Frame::trailers(trailers.clone()))).await.unwrap();
        drop(sender);
        assert_eq!(body.frame().await.unwrap().unwrap().into_trailers().unwrap(), trailers, "{scheme}");
        assert!(body.frame().await.is_none());
        // And the connection can be used again.
        assert_eq!(grant.pool.count(), (1, 1));
        assert_eq!(
            text(send(&out, &grant, post(&server.named(scheme, "a.example"), full_body("again"))).await.unwrap()).await,
            "again"
        );
        assert_eq!(server.total(), 1);
    }
}

#[tokio::test]
async fn large_bodies_pass_without_being_gathered() {
    let (root, acceptor) = tls(&["a.example"], &["h2"]);
    for acceptor in [None, Some(acceptor)] {
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let server = mirror(acceptor).await;
        let part = Bytes::from(vec![7u8; 64 << 10]);
        let parts = futures::stream::iter((0..256).map(move |_| Ok(http_body::Frame::data(part.clone()))));
        let body = http_body_util::StreamBody::new(parts).boxed_unsync();
        let mut body =
            send(&trusting(root.clone()), &open_grant(&server), post(&server.named(scheme, "a.example"), body))
                .await
                .unwrap()
                .into_body();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame.unwrap().into_data().map_or(0, |data| data.len());
        }
        assert_eq!(bytes, 16 << 20);
    }
}
