//! What a guest can reach outside of its sandbox: HTTP when it was granted, sockets never.

use kit_p2::{Reply, answer, json_string};
use wasip2::http::types::{ErrorCode, Fields, OutgoingBody, OutgoingRequest, ResponseOutparam, Scheme};
use wasip2::http::outgoing_handler;
use wasip2::sockets::network::{IpAddressFamily, IpSocketAddress, Ipv4SocketAddress};
use wasip2::sockets::{instance_network, ip_name_lookup, tcp_create_socket};

/// Fetches `url` and streams the answer back; 502 with the error's name when there is none.
pub fn fetch(out: ResponseOutparam, url: &str) {
    match requested(url) {
        Ok(response) => {
            let headers = response.headers().get("content-type");
            let content_type = headers.first().map(|value| String::from_utf8_lossy(value).into_owned());
            let content_type = content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
            let body = response.consume().expect("the body is taken once");
            Reply::start(out, response.status(), &[("content-type", &content_type)]).copy(body);
        }
        Err(error) => answer(out, 502, "text/plain", &format!("{error:?}\n")),
    }
}

fn requested(url: &str) -> Result<wasip2::http::types::IncomingResponse, ErrorCode> {
    let invalid = |_| ErrorCode::HttpRequestUriInvalid;
    let (scheme, rest) = url.split_once("://").ok_or(ErrorCode::HttpRequestUriInvalid)?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&scheme)).map_err(invalid)?;
    request.set_authority(Some(authority)).map_err(invalid)?;
    request.set_path_with_query(Some(path)).map_err(invalid)?;
    let body = request.body().map_err(invalid)?;
    let response = outgoing_handler::handle(request, None)?;
    OutgoingBody::finish(body, None)?;
    response.subscribe().block();
    response.get().expect("it is ready").expect("it is taken once")
}

/// Tries a TCP connection and a name look-up: both must be refused.
pub fn sockets() -> String {
    format!("{{\"connect\":{},\"look-up\":{}}}", json_string(&connect()), json_string(&look_up()))
}

fn connect() -> String {
    let Ok(socket) = tcp_create_socket::create_tcp_socket(IpAddressFamily::Ipv4) else {
        return "refused at the socket".to_owned();
    };
    let network = instance_network::instance_network();
    let address = IpSocketAddress::Ipv4(Ipv4SocketAddress { port: 80, address: (127, 0, 0, 1) });
    if let Err(error) = socket.start_connect(&network, address) {
        return format!("refused at the start: {error:?}");
    }
    socket.subscribe().block();
    match socket.finish_connect() {
        Ok(_) => "connected".to_owned(),
        Err(error) => format!("refused at the end: {error:?}"),
    }
}

fn look_up() -> String {
    let network = instance_network::instance_network();
    match ip_name_lookup::resolve_addresses(&network, "localhost") {
        Err(error) => format!("refused at the start: {error:?}"),
        Ok(addresses) => {
            addresses.subscribe().block();
            match addresses.resolve_next_address() {
                Ok(address) => format!("resolved {address:?}"),
                Err(error) => format!("refused at the end: {error:?}"),
            }
        }
    }
}
