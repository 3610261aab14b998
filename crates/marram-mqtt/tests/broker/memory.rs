//! The memory for messages has an end, whoever has whatever in it, and nobody is kept out by it for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use marram_mqtt::Limits;
use tokio::task::JoinHandle;

use crate::client::{Client, Got, Hello, New, fresh, kept};
use crate::node::{Node, until};

const MEMORY: usize = 4 << 20;

/// With more open at once than a client acknowledges.
fn small() -> Limits {
    Limits { memory_bytes: MEMORY, connections: 200, outbound_bytes: 256 << 10, ..Limits::default() }
}

/// Reads what comes and acknowledges nothing. How many messages have come, of all that count there.
fn deaf(mut client: Client, count: &Arc<AtomicUsize>) -> JoinHandle<()> {
    let count = count.clone();
    tokio::spawn(async move {
        loop {
            match client.get().await {
                Got::End => return,
                got => count.fetch_add(usize::from(matches!(got, Got::Message(_))), Ordering::Relaxed),
            };
        }
    })
}

/// Who is there and has none of the memory gets what is sent to it.
async fn others_are_served(node: &Node) {
    let (mut from, _) = Client::connect(node.address, New, "other-from", fresh()).await;
    for (level, hello) in [(0, fresh()), (1, fresh()), (1, kept())] {
        let (mut to, _) = Client::connect(node.address, New, "other", hello).await;
        to.subscribe("other", level).await;
        for _ in 0..10 {
            from.publish("other", &[7; 8_000], 0, 0).await;
            from.put("other", &[7; 8_000]).await;
        }
        for _ in 0..20 {
            if let Some(packet) = to.message().await.packet_id {
                to.ack(0x40, packet.get()).await;
            }
        }
        to.bye().await;
    }
}

fn in_memory(node: &Node) -> usize {
    let counts = node.broker.counts();
    usize::try_from(counts.memory + counts.reserve).unwrap()
}

#[tokio::test]
async fn queues_on_the_disk_do_not_fill_the_memory() {
    const CLIENTS: usize = 20;
    let node = Node::limited(small()).await;
    let name = |n: usize| format!("deaf-{n}");
    for n in 0..CLIENTS {
        let (mut client, _) = Client::connect(node.address, New, &name(n), kept()).await;
        client.subscribe("t", 1).await;
        client.bye().await;
    }
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    for n in 0..30 {
        from.put("t", &[n; 200_000]).await;
    }
    let came = Arc::default();
    for n in 0..CLIENTS {
        deaf(Client::connect(node.address, New, &name(n), kept()).await.0, &came);
    }
    until("what may be on its way to come", async || came.load(Ordering::Relaxed) >= CLIENTS).await;
    others_are_served(&node).await;
    assert!(in_memory(&node) < MEMORY, "{:?}", node.broker.counts());
    // Nothing is lost to who comes to take it.
    let (mut client, present) = Client::connect(node.address, New, &name(0), kept()).await;
    assert!(present);
    for n in 0..30 {
        let got = client.message().await;
        assert_eq!((got.payload[0], got.payload.len()), (n, 200_000));
        client.ack(0x40, got.packet_id.unwrap().get()).await;
    }
}

#[tokio::test]
async fn a_large_message_for_each_does_not_fill_the_memory() {
    const CLIENTS: usize = 60;
    let node = Node::limited(small()).await;
    let came = Arc::default();
    for n in 0..CLIENTS {
        let (mut client, _) = Client::connect(node.address, New, &format!("deaf-{n}"), fresh()).await;
        client.subscribe(&format!("t/{n}"), 1).await;
        deaf(client, &came);
    }
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    for _ in 0..3 {
        for n in 0..CLIENTS {
            from.put(&format!("t/{n}"), &[7; 200_000]).await;
        }
    }
    assert!(in_memory(&node) < MEMORY, "{:?}", node.broker.counts());
    assert!(node.broker.counts().dropped_full > 0, "it has an end");
    others_are_served(&node).await;
}

/// A queue on the disk, and retained messages, with more in each message than the part of anybody.
#[tokio::test]
async fn what_is_larger_than_a_part_comes_to_who_takes_it() {
    let node = Node::limited(small()).await;
    let (mut to, _) = Client::connect(node.address, New, "to", kept()).await;
    to.subscribe("t", 1).await;
    to.bye().await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    for n in 0..5 {
        from.put("t", &[n; 500_000]).await;
        from.retain(&format!("r/{n}"), &[n; 500_000], 1).await;
    }
    let (mut to, present) = Client::connect(node.address, New, "to", kept()).await;
    assert!(present);
    let (mut late, _) = Client::connect(node.address, New, "late", fresh()).await;
    late.subscribe("r/+", 1).await;
    for n in 0..5 {
        for client in [&mut to, &mut late] {
            let got = client.message().await;
            assert_eq!((got.payload[0], got.payload.len()), (n, 500_000));
            client.ack(0x40, got.packet_id.unwrap().get()).await;
        }
    }
    until("everything to be out of memory", async || in_memory(&node) == 0).await;
}

/// It is there once: that many get it at the same time does not make it more.
#[tokio::test]
async fn one_message_for_many_counts_once() {
    let node = Node::limited(Limits { send_max: 1, ..small() }).await;
    let came = Arc::default();
    for (level, receive_max) in [(0, None), (1, Some(1))] {
        for n in 0..40 {
            let hello = Hello { receive_max, ..fresh() };
            let (mut client, _) = Client::connect(node.address, New, &format!("{level}-{n}"), hello).await;
            client.subscribe("t", level).await;
            deaf(client, &came);
        }
    }
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    from.put("t", &[7; 200_000]).await;
    until("all to have it", async || came.load(Ordering::Relaxed) == 80).await;
    from.put("t", &[7; 200_000]).await;
    until("those of QoS 0 to have it", async || came.load(Ordering::Relaxed) == 120).await;
    assert_eq!(in_memory(&node), 200_000 + 1 + 32, "those of QoS 1 wait for it");
    assert_eq!(node.broker.counts().dropped_full, 0);
}
