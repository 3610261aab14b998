//! How WebSockets begin and end; what goes through them is in `transports`.

use futures::{SinkExt as _, StreamExt as _};
use marram_mqtt::{Origins, Transport};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::client::DEADLINE;
use crate::node::Node;

/// RFC 6455 §5.5.1 and §7.1: whoever ends it, there is a Close from here before the end of the stream.
#[tokio::test]
async fn a_websocket_ends_with_a_close() {
    const CONNECT: &[u8] = b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a";
    let node = Node::new().await;
    let address = node.listen(Transport { tls: None, websocket: Some(Origins::Any) }).await;
    let open = async |connect: bool| {
        let mut request = format!("ws://{address}/mqtt").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("mqtt"));
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        if connect {
            socket.send(Message::Binary(CONNECT.into())).await.unwrap();
            assert!(matches!(socket.next().await, Some(Ok(Message::Binary(_)))), "no CONNACK");
        }
        socket
    };
    let close = |code| Message::Close(Some(CloseFrame { code, reason: "".into() }));
    let binary = |bytes: &'static [u8]| Message::Binary(bytes.into());
    for (what, connect, sent, code) in [
        ("a Close", true, close(CloseCode::Away), Some(CloseCode::Away)),
        ("a Close in the place of a CONNECT", false, close(CloseCode::Normal), Some(CloseCode::Normal)),
        ("a DISCONNECT", true, binary(&[0xe0, 0]), None),
        ("a packet that is none", true, binary(&[0xf0, 0]), None),
        ("what is not MQTT", false, binary(b"GET / HTTP/1.1\r\n\r\n"), None),
        ("text", true, Message::Text("hello".into()), Some(CloseCode::Unsupported)),
        ("an administrator's wish", true, binary(b""), None),
    ] {
        let mut socket = open(connect).await;
        socket.send(sent).await.unwrap();
        if what.starts_with("an administrator") {
            assert!(node.broker.disconnect("a", false).await.unwrap());
        }
        let rest = tokio::time::timeout(DEADLINE, socket.collect::<Vec<_>>()).await.expect(what);
        match &rest[..] {
            [Ok(Message::Close(said))] => assert_eq!(said.as_ref().map(|frame| frame.code), code, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        node.gone("a").await;
    }
}

/// RFC 6455 §4.2.2 and §4.4: who opens no WebSocket, or one of another version, is told so in HTTP.
#[tokio::test]
async fn what_opens_no_websocket_is_answered_in_http() {
    let node = Node::new().await;
    let address = node.listen(Transport { tls: None, websocket: Some(Origins::Any) }).await;
    let hello = |version: &str, key: &str, more: &str| {
        format!(
            "GET /mqtt HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: {version}\r\nsec-websocket-key: {key}\r\n\
             sec-websocket-protocol: mqtt\r\n{more}\r\n"
        )
    };
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    for (what, sent, status) in [
        ("plain HTTP", "GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), 426),
        ("another version", hello("8", key, ""), 426),
        ("a short key", hello("13", "c2hvcnQ=", ""), 400),
        ("another method", "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody".to_owned(), 400),
        ("no HTTP", "\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a".to_owned(), 400),
        ("something behind the hello", hello("13", key, "") + "early", 400),
        ("a head of 20 KB", hello("13", key, &format!("x: {}\r\n", "y".repeat(20_000))), 431),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer)).await;
        read.expect(what).expect(what);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").expect(what);
        let has = |line: &str| head.lines().any(|there| there == line);
        assert!(has(&format!("content-length: {}", body.len())), "{what}: {answer}");
        let told = has("sec-websocket-version: 13") && has("upgrade: websocket");
        assert_eq!(told, status == 426, "{what}: {answer}");
    }
}
