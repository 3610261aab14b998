//! Anything at all at a live session.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::client::{Client, Got, New, fresh};
use crate::node::Node;

/// Packets that mean something, of both versions.
const SEEDS: &[&[u8]] = &[
    b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01b",
    b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x01b",
    b"\x30\x05\0\x01txx",
    b"\x30\x06\0\x01t\0xx",
    b"\x32\x07\0\x01t\0\x07xx",
    b"\x34\x08\0\x01t\0\x08\0xx",
    b"\x35\x0b\0\x01t\0\x09\x03\x23\0\x01xx",
    b"\x62\x02\0\x08",
    b"\x40\x02\0\x02",
    b"\x50\x04\0\x02\0\0",
    b"\x70\x02\0\x02",
    b"\x82\x06\0\x01\0\x01t\x02",
    b"\x82\x0d\0\x01\0\x08$share/g/t\x02",
    b"\x82\x09\0\x01\x02\x0b\x05\0\x01#\x2e",
    b"\xa2\x05\0\x02\0\x01t",
    b"\xc0\0",
    b"\xe0\0",
    b"\xe0\x07\0\x05\x11\0\0\0\x09",
    b"\xf0\0",
];

/// Mutated packets, in any order, on a connection of either version; and always somebody else who must not notice.
#[test]
fn nothing_that_a_client_sends_harms_another() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let node = runtime.block_on(Node::new());
    node.journal.capture("t/#");
    let (mut other, _) = runtime.block_on(Client::connect(node.address, New, "other", fresh()));
    runtime.block_on(other.subscribe("safe/#", 1));
    let other = tokio::sync::Mutex::new(other);
    let packet = (0..SEEDS.len(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3));
    let strategy = (any::<bool>(), prop::collection::vec(packet, 1..12));
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    runner
        .run(&strategy, |(old, packets)| {
            let mut bytes = SEEDS[usize::from(!old)].to_vec();
            for (seed, edits) in packets {
                let mut packet = SEEDS[seed].to_vec();
                for (at, byte) in edits {
                    let at = at.index(packet.len());
                    packet[at] = byte;
                }
                bytes.extend(packet);
            }
            runtime.block_on(async {
                let mut bad = tokio::net::TcpStream::connect(node.address).await.unwrap();
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                let _ = bad.write_all(&bytes).await;
                let _ = bad.shutdown().await;
                let mut answers = Vec::new();
                let ended = tokio::time::timeout(crate::client::DEADLINE, bad.read_to_end(&mut answers)).await;
                prop_assert!(ended.is_ok(), "the connection goes on after its end");
                let mut other = other.lock().await;
                other.put("safe/1", b"x").await;
                let got = other.message().await;
                other.ack(0x40, got.packet_id.unwrap().get()).await;
                Ok(())
            })
        })
        .unwrap();
    assert_eq!(runtime.block_on(other.into_inner().quiet()), Vec::<Got>::new());
    assert_eq!(runtime.block_on(node.broker.stop()), 0);
}
