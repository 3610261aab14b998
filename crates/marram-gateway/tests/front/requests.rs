//! What a function gets of a request.

use http::Method;
use marram_gateway::{GatewayConfig, Limits};

use crate::support::*;

/// A request with these lines reaches the function with `has` and without `lacks`.
async fn check(lines: &str, has: &[&str], lacks: &[&str]) {
    let front = mirrored().await;
    let answer = front
        .exchange(format!("GET /x?y=z HTTP/1.1\r\nhost: shop.example:80\r\n{lines}connection: close\r\n\r\n"))
        .await;
    assert_has(&answer, has);
    assert_lacks(&answer, lacks);
}

#[tokio::test]
async fn hop_by_hop_fields_stay_behind() {
    check("x-mine: 1\r\nConnection: X-Mine, keep-alive\r\nx-other: 2\r\n", &["\nx-other: 2\n"], &["x-mine"]).await;
    check("keep-alive: timeout=5\r\nproxy-connection: x\r\n", &[], &["keep-alive", "proxy-connection"]).await;
    check("upgrade: websocket\r\nte: trailers, deflate\r\n", &["\nte: trailers\n"], &["upgrade", "deflate"]).await;
    check("marram-param-id: 7\r\nMarram-Request-Id: 7\r\n", &[], &["marram-param", "id: 7"]).await;
    // What CGI and WSGI take for the same, and what they do not.
    let alike =
        "marram_trigger: 7\r\nMarram_Param-Id: 7\r\nX_Forwarded_For: 7\r\nx-real_ip: 7\r\nx_api_key: 8\r\nmy_id: 9\r\n";
    check(alike, &["\nx_api_key: 8\n", "\nmy_id: 9\n"], &["marram_", "_param", "_for", "real_ip", ": 7\n"]).await;
}

#[tokio::test]
async fn who_asks_is_not_for_the_client_to_say() {
    let claims = "x-forwarded-for: 9.9.9.9\r\nx-forwarded-proto: https\r\nx-forwarded-host: evil\r\nx-real-ip: 9.9.9.9\r\n\
                  x-forwarded-port: 443\r\nforwarded: for=9.9.9.9\r\n";
    let truth = [
        "GET http://shop.example:80/x?y=z\n",
        "\nhost: shop.example:80\n",
        "\nx-forwarded-for: 127.0.0.1\n",
        "\nx-forwarded-host: shop.example:80\n",
        "\nx-forwarded-proto: http\n",
        "\nforwarded: for=127.0.0.1;host=\"shop.example:80\";proto=http\n",
        "\ncall: 127.0.0.1 ",
    ];
    check(claims, &truth, &["9.9.9.9", "evil", "443"]).await;
    check("", &truth, &[]).await;
    let names = "connection: host, forwarded, x-forwarded-for, x-forwarded-host, x-forwarded-proto, traceparent\r\n";
    check(names, &truth, &[]).await;
    check(names, &["\ntraceparent: 00-"], &[]).await;
    check(&format!("{claims}{names}"), &truth, &["9.9.9.9", "evil", "443"]).await;
}

#[tokio::test]
async fn several_cookie_fields_reach_the_function_as_one() {
    check("cookie: a=1\r\nx: y\r\nCookie: b=2; c=3\r\n", &["\ncookie: a=1; b=2; c=3\n"], &["\ncookie: b"]).await;
    check("cookie: a=1\r\n", &["\ncookie: a=1\n"], &[]).await;
}

#[tokio::test]
async fn trusted_proxies_are_believed() {
    let trusted_proxies = vec!["127.0.0.0/8".parse().expect("range"), "10.0.0.0/8".parse().expect("range")];
    let config = GatewayConfig { trusted_proxies, limits: Limits::default() };
    let front = Front::configured(Routes::new().on("/...", mirror()), config).await;
    let head = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-forwarded-for: 6.6.6.6, 9.9.9.9\r\nx-forwarded-for: 10.1.1.1\r\n\
                x-forwarded-proto: https\r\nx-forwarded-host: shop.example\r\nforwarded: for=9.9.9.9\r\n\
                connection: forwarded, x-forwarded-for, x-forwarded-host, x-forwarded-proto\r\n\r\n";
    let expected = [
        "GET https://a/\n",
        "\nx-forwarded-for: 6.6.6.6, 9.9.9.9, 10.1.1.1, 127.0.0.1\n",
        "\nx-forwarded-host: shop.example\n",
        "\nforwarded: for=9.9.9.9, for=127.0.0.1;host=\"a\";proto=http\n",
        "\ncall: 9.9.9.9 ",
    ];
    assert_has(&front.exchange(head).await, &expected);
}

#[tokio::test]
async fn traces_go_on_or_begin() {
    let parent = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=b\r\n";
    let child = "\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-";
    check(parent, &[child, "\ntracestate: a=b\n"], &["b7ad6b7169203331"]).await;
    let fresh = "\ntraceparent: 00-0000000000000";
    for bad in ["traceparent: 00-0-0-01\r\n", "", &format!("{parent}{parent}")] {
        check(&format!("{bad}tracestate: c=d\r\n"), &[fresh], &["tracestate", "0af765"]).await;
    }
}

#[tokio::test]
async fn parameters_of_routes_are_headers() {
    let front = Front::start(Routes::new().on("shop.example/api/:user/:id/...", mirror()), Limits::default()).await;
    let answer = front.exchange("GET /api/anna%20b/7/x/y HTTP/1.1\r\nhost: SHOP.example:80\r\nmarram-param-id: 8\r\nconnection: close\r\n\r\n").await;
    assert_has(&answer, &["\nmarram-param-user: anna%20b\n", "\nmarram-param-id: 7\n"]);
    assert_lacks(&answer, &["marram-param-id: 8"]);
}

#[tokio::test]
async fn nothing_here_and_not_with_this_method() {
    let routes = Routes::new().with("/a", &[Method::GET, Method::POST], 0, says("a")).on("/b", says("b"));
    let front = Front::start(routes, Limits::default()).await;
    let ask = |line: &str| front.exchange(format!("{line} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"));
    let missing = ask("GET /c").await;
    assert_eq!(statuses(&missing), [404]);
    assert_has(&missing, &["\"type\":\"urn:marram:problem:not-found\"", "\"status\":404", "\"request_id\":\""]);
    let id = missing.split("marram-request-id: ").nth(1).and_then(|rest| rest.get(..16)).expect("an id");
    assert_has(&missing, &[&format!("\"request_id\":\"{id}\"")]);
    let put = ask("PUT /a").await;
    assert_eq!(statuses(&put), [405]);
    assert_has(&put, &["\r\nallow: GET, HEAD, POST\r\n"]);
    assert_eq!(statuses(&ask("HEAD /a").await), [200]);
    assert_eq!(statuses(&ask("PUT /b").await), [200]);
    assert_eq!(front.recorder.ends.lock().expect("lock").len(), 4);
}
