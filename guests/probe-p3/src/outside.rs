//! What a guest can reach outside of its sandbox: HTTP when it was granted, sockets never.

use crate::reply::{json_string, text};
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Request, Response, Scheme};
use wasip3::sockets::ip_name_lookup::resolve_addresses;
use wasip3::sockets::types::{IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, TcpSocket};
use wasip3::wit_future;

/// Fetches `url` and streams the answer back; 502 with the error's name when there is none.
pub async fn fetch(url: &str) -> Response {
    let url = url.replace("%3A", ":").replace("%2F", "/");
    let answer = match requested(&url) {
        Ok(request) => client::send(request).await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(response) => {
            let headers = Fields::new();
            for value in response.get_headers().get("content-type") {
                let _ = headers.append("content-type", &value);
            }
            let status = response.get_status_code();
            let (_, received) = wit_future::new(|| Ok(()));
            let (body, trailers) = Response::consume_body(response, received);
            let (response, _sent) = Response::new(headers, Some(body), trailers);
            let _ = response.set_status_code(status);
            response
        }
        Err(error) => text(502, "text/plain", format!("{error:?}\n")),
    }
}

fn requested(url: &str) -> Result<Request, ErrorCode> {
    let invalid = |_| ErrorCode::HttpRequestUriInvalid;
    let (scheme, rest) = url.split_once("://").ok_or(ErrorCode::HttpRequestUriInvalid)?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let (_, no_trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, no_trailers, None);
    request.set_scheme(Some(&scheme)).map_err(invalid)?;
    request.set_authority(Some(authority)).map_err(invalid)?;
    request.set_path_with_query(Some(path)).map_err(invalid)?;
    Ok(request)
}

/// Tries a TCP connection and a name look-up: both must be refused.
pub async fn sockets() -> String {
    let address = IpSocketAddress::Ipv4(Ipv4SocketAddress { port: 80, address: (127, 0, 0, 1) });
    let connect = match TcpSocket::create(IpAddressFamily::Ipv4) {
        Err(error) => format!("refused at the socket: {error:?}"),
        Ok(socket) => match socket.connect(address).await {
            Ok(()) => "connected".to_owned(),
            Err(error) => format!("refused at the start: {error:?}"),
        },
    };
    let look_up = match resolve_addresses("localhost".to_owned()).await {
        Ok(addresses) => format!("resolved {addresses:?}"),
        Err(error) => format!("refused at the start: {error:?}"),
    };
    format!("{{\"connect\":{},\"look-up\":{}}}", json_string(&connect), json_string(&look_up))
}
