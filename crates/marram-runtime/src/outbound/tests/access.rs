//! What a function reaches, and what it does not.

use std::sync::atomic::{AtomicUsize, Ordering};

use marram_core::port::full_body;

use super::*;

async fn hello() -> Server {
    Server::http(None, |request, _| async move {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        Response::new(full_body(host))
    })
    .await
}

#[tokio::test]
async fn what_is_not_granted_is_not_even_looked_up() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let out = outbound_with(Arc::new(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(vec![]) })
    }));
    let grant =
        Grant::new(&allow(&["https://api.example.com", "https://*.example.org", "http://*.0.0.1"], &["127.0.0.0/8"]));
    let denied = [
        ("http://api.example.com/", "http://api.example.com"),
        ("https://api.example.com:8443/", "https://api.example.com:8443"),
        ("https://example.org/", "https://example.org"),
        ("https://api.example.com.evil.net/", "https://api.example.com.evil.net"),
        ("http://127.0.0.1/", "http://127.0.0.1"),
        ("http://audit.internal/", "internal:audit"),
    ];
    for (url, add) in denied {
        let error = send(&out, &grant, get(url)).await.unwrap_err();
        assert!(matches!(error, OutboundError::Denied { .. }), "{url}: {error}");
        assert!(error.to_string().ends_with(&format!("add {add:?} to allow.http of this function")), "{error}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    for url in ["https://API.example.com./", "https://a.b.example.org/"] {
        assert!(matches!(send(&out, &grant, get(url)).await, Err(OutboundError::Dns { .. })), "{url}");
    }
}

#[tokio::test]
async fn a_name_that_points_inside_is_refused() {
    let inside = [
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.5",
        "172.20.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.7",
        "::1",
        "::",
        "fd00:ec2::254",
        "fe80::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ];
    let grant = Grant::new(&allow(&["https://*"], &["10.1.0.0/16"]));
    for address in inside {
        let error =
            send(&outbound_with(everything_at(&[address])), &grant, get("https://a.example/")).await.unwrap_err();
        let OutboundError::AddressDenied { host, add, .. } = &error else { panic!("{address}: {error}") };
        assert_eq!(host, "a.example");
        assert!(add.parse::<ipnet::IpNet>().is_ok(), "{add}");
    }
    let error =
        send(&outbound_with(everything_at(&["10.0.0.5"])), &grant, get("https://a.example/")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "a.example is at 10.0.0.5, a private address, which allow.http alone does not open: \
         add \"10.0.0.5/32\" to allow.addresses of this function"
    );
}

#[tokio::test]
async fn an_address_in_allow_http_needs_allow_addresses_too() {
    let server = hello().await;
    let port = server.at.port();
    let rule = format!("http://127.0.0.1:{port}");
    let spellings = [
        "127.0.0.1",
        "127.0.0.1.",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
    ];
    let closed = Grant::new(&allow(&[&rule], &[]));
    let opened = Grant::new(&allow(&[&rule], &["127.0.0.1/32"]));
    for spelling in spellings {
        let url = server.named("http", spelling);
        let error = send(&outbound(), &closed, get(&url)).await.unwrap_err();
        assert!(matches!(error, OutboundError::AddressDenied { .. }), "{url}: {error}");
        assert!(error.to_string().contains("add \"127.0.0.1/32\" to allow.addresses"), "{error}");
        let host = text(send(&outbound(), &opened, get(&url)).await.unwrap()).await;
        assert_eq!(host, format!("127.0.0.1:{port}"), "{url}");
    }
    let any = Grant::new(&allow(&[&format!("http://*:{port}")], &[]));
    for host in ["localhost", "localhost.", "LOCALHOST", "[::1]", "[::]", "0", "0.0.0.0"] {
        let result = send(&outbound(), &any, get(&server.named("http", host))).await;
        assert!(matches!(result, Err(OutboundError::AddressDenied { .. })), "{host}");
    }
    // All of them are one origin, so the one connection was used again.
    assert_eq!(server.total(), 1);
}

#[tokio::test]
async fn a_rule_is_read_in_any_spelling() {
    let server = hello().await;
    let port = server.at.port();
    let grant =
        Grant::new(&allow(&[&format!("http://a.example.:{port}"), &format!("http://127.1:{port}")], &["127.0.0.0/8"]));
    let out = outbound_with(everything_at(&["127.0.0.1"]));
    for host in ["A.Example", "a.example.", "127.0.0.1"] {
        assert!(send(&out, &grant, get(&server.named("http", host))).await.is_ok(), "{host}");
    }
}

#[tokio::test]
async fn the_address_that_was_checked_is_the_one_connected_to() {
    // The name answers differently each time: first an allowed address, then one that is not.
    let server = hello().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let out = outbound_with(Arc::new(move |_, _| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        let answer: IpAddr = if first { "127.0.0.1" } else { "10.0.0.1" }.parse().unwrap();
        Box::pin(async move { Ok(vec![answer]) })
    }));
    assert!(send(&out, &open_grant(&server), get(&server.named("http", "a.example"))).await.is_ok());
    assert_eq!((server.total(), asked.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn of_several_addresses_only_allowed_ones_are_tried() {
    let server = hello().await;
    // 127.0.0.2 refuses, and the next one is tried; the private ones are left out.
    let out = outbound_with(everything_at(&["10.0.0.1", "127.0.0.2", "::1", "127.0.0.1"]));
    let response = send(&out, &open_grant(&server), get(&server.named("http", "a.example"))).await.unwrap();
    assert_eq!(text(response).await, format!("a.example:{}", server.at.port()));
}

#[tokio::test]
async fn an_allowed_address_does_not_let_its_neighbours_in() {
    // Both addresses answer at this port; the name has both, the other one first.
    let server = hello().await;
    let port = server.at.port();
    let neighbour = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let grant = Grant::new(&allow(&[&format!("http://*:{port}")], &["127.0.0.1/32"]));
    let out = outbound_with(everything_at(&["127.0.0.2", "127.0.0.1"]));
    text(send(&out, &grant, get(&server.named("http", "a.example"))).await.unwrap()).await;
    assert_eq!(server.total(), 1);
    assert!(futures::poll!(Box::pin(neighbour.accept())).is_pending(), "the neighbour was connected to");
}

#[tokio::test]
async fn one_functions_connection_is_not_anothers_way_in() {
    let server = hello().await;
    let out = outbound_with(everything_at(&["127.0.0.1"]));
    let url = server.named("http", "a.example");
    let granted = open_grant(&server);
    text(send(&out, &granted, get(&url)).await.unwrap()).await;
    assert_eq!(granted.pool.count(), (1, 1));
    let other = Grant::new(&allow(&[&format!("http://a.example:{}", server.at.port())], &[]));
    assert!(matches!(send(&out, &other, get(&url)).await, Err(OutboundError::AddressDenied { .. })));
    assert_eq!(server.total(), 1);
}

#[tokio::test]
async fn redirects_are_not_followed_and_bad_uris_are_named() {
    let server = Server::http(None, |_, _| async {
        Response::builder().status(302).header("location", "http://127.0.0.1:1/").body(empty_body()).unwrap()
    })
    .await;
    let (out, grant) = (outbound(), open_grant(&server));
    assert_eq!(send(&out, &grant, get(&server.url("/"))).await.unwrap().status(), 302);
    for bad in ["/relative", "ftp://example.com/", "http://u:p@127.0.0.1/", "http://1.2.3.4.5/"] {
        let error = send(&out, &grant, get(bad)).await.unwrap_err();
        assert!(matches!(error, OutboundError::UriInvalid { .. }), "{bad}: {error}");
    }
}
