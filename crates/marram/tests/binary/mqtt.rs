//! As much of MQTT 3.1.1 as devices of tests need: packets in and out, and a session that stays. And `marram mqtt`, which shows
//! them.

use std::io::{Error, ErrorKind, Result};

use marram_testkit::eventually;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::support::{Node, home, lines};

pub type Reader = BufReader<OwnedReadHalf>;
pub type Writer = OwnedWriteHalf;

/// Types of packets (§2.2.1).
pub const CONNACK: u8 = 2;
pub const PUBLISH: u8 = 3;
pub const PUBACK: u8 = 4;
pub const PUBREC: u8 = 5;
pub const PUBREL: u8 = 6;
pub const PUBCOMP: u8 = 7;
pub const SUBACK: u8 = 9;

/// Connects with a session that stays (§3.1.2.4).
pub async fn connect(address: &str, name: &str) -> Result<(Reader, Writer)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 60];
    push_text(&mut body, name);
    write.write_all(&packet(1 << 4, &body)).await?;
    match next(&mut read).await? {
        (kind, body) if kind >> 4 == CONNACK && body[1] == 0 => Ok((read, write)),
        // Server unavailable (§3.2.2.3).
        (kind, body) if kind >> 4 == CONNACK && body[1] == 3 => Err(ErrorKind::ConnectionAborted.into()),
        other => Err(Error::new(ErrorKind::InvalidData, format!("{name} is not let in: {other:?}"))),
    }
}

/// Subscribes at QoS 1, and waits until that is granted.
pub async fn subscribe(read: &mut Reader, write: &mut Writer, filter: &str) -> Result<()> {
    let mut body = vec![0, 1];
    push_text(&mut body, filter);
    body.push(1);
    write.write_all(&packet(8 << 4 | 2, &body)).await?;
    assert_eq!(next(read).await?, (SUBACK << 4, vec![0, 1, 1]));
    Ok(())
}

/// A PUBLISH of QoS 1 or 2.
pub fn publish(topic: &str, payload: &[u8], qos: u8, id: u16, again: bool) -> Vec<u8> {
    let mut body = Vec::with_capacity(topic.len() + payload.len() + 4);
    push_text(&mut body, topic);
    body.extend(id.to_be_bytes());
    body.extend(payload);
    packet(PUBLISH << 4 | u8::from(again) << 3 | qos << 1, &body)
}

/// PUBACK and its like.
pub fn about(kind: u8, id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    // Of these only PUBREL has a flag (§3.6.1).
    [kind << 4 | if kind == PUBREL { 2 } else { 0 }, 2, high, low]
}

/// What a PUBLISH of QoS 1 or 2 says: topic, packet identifier, payload.
pub fn message(body: &[u8]) -> (&str, u16, &[u8]) {
    let (length, rest) = body.split_at(2);
    let (topic, rest) = rest.split_at(usize::from(u16::from_be_bytes([length[0], length[1]])));
    (std::str::from_utf8(topic).unwrap(), u16::from_be_bytes([rest[0], rest[1]]), &rest[2..])
}

/// The next packet: its first byte, and what follows its length.
pub async fn next(read: &mut Reader) -> Result<(u8, Vec<u8>)> {
    let kind = read.read_u8().await?;
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = read.read_u8().await?;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            break;
        }
    }
    let mut body = vec![0; length];
    read.read_exact(&mut body).await?;
    Ok((kind, body))
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    // §2.2.3: seven bits a byte, the least first.
    loop {
        let byte = u8::try_from(length % 128).expect("it is below 128");
        length /= 128;
        packet.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

fn push_text(body: &mut Vec<u8>, text: &str) {
    body.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    body.extend(text.bytes());
}

#[tokio::test]
async fn clients_are_listed_while_they_have_a_session() {
    let mut node = Node::start_in(home("[mqtt]\nlisten = \"127.0.0.1:0\"\n").await).await;
    let printed = node.running.prints("mqtt=mqtt://").await;
    let address = printed.lines().find_map(|line| line.strip_prefix("mqtt=mqtt://")).unwrap().to_owned();
    let mqtt = |args: &[&str]| node.marram(&[&["mqtt"], args].concat());
    mqtt(&["clients"]).run().await.expect(0).without_data().says(&["no MQTT client has a session"]);
    assert_eq!(mqtt(&["clients", "--json"]).done().await, "");

    let (mut read, mut write) = connect(&address, "pump-7").await.unwrap();
    subscribe(&mut read, &mut write, "plant/#").await.unwrap();
    let other = connect(&address, "fan-1").await.unwrap();
    let clients = lines(&mqtt(&["clients", "--json"]).done().await);
    let shown = |name: &str| clients.iter().map(|client| client[name].clone()).collect::<Vec<_>>();
    assert_eq!(shown("client"), ["fan-1", "pump-7"]);
    assert_eq!(shown("version"), ["3.1.1", "3.1.1"]);
    assert_eq!(shown("subscriptions"), [json!([]), json!(["plant/#"])]);
    assert!(shown("connected_unix_ms").iter().all(Value::is_u64), "{clients:?}");
    let table = mqtt(&["clients"]).done().await;
    for part in ["CLIENT", "fan-1", "pump-7", "plant/#"] {
        assert!(table.contains(part), "{part:?} is not in {table}");
    }

    // Whoever may connect says what it is called.
    let forger = connect(&address, "\u{1b}]0;x\u{7}\nfan-9").await.unwrap();
    let table = mqtt(&["clients"]).done().await;
    assert!(!table.contains(['\u{1b}', '\u{7}']) && !table.contains("\nfan-9"), "{table:?}");
    let gone = mqtt(&["disconnect", "\u{1b}]0;x\u{7}\nfan-9", "--forget"]).run().await.expect(0).without_data();
    assert!(!gone.stderr.contains("\nfan-9"), "{gone:?}");
    drop(forger);

    // Who goes away keeps the session.
    drop((read, write));
    eventually("pump-7 is away", || async {
        let clients = lines(&mqtt(&["clients", "--json"]).done().await);
        assert_eq!(clients[1]["client"], "pump-7");
        clients[1]["connected_unix_ms"].is_null().then_some(())
    })
    .await;
    assert!(mqtt(&["clients"]).done().await.contains("away"));
    for name in ["pump-7", "fan-1"] {
        let gone = mqtt(&["disconnect", name, "--forget"]).run().await.expect(0).without_data();
        gone.says(&["disconnected", name]);
    }
    eventually("nobody has a session", || async { mqtt(&["clients", "--json"]).done().await.is_empty().then_some(()) })
        .await;
    drop(other);
    node.drain().await.expect(0);
}
