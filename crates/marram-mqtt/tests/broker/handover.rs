//! What waits for a member of a group goes to another when its session ends (5.0 §4.8.2).

use std::time::Duration;

use marram_core::Kind;
use marram_mqtt::Limits;
use tokio::task::JoinHandle;

use crate::client::{BOTH, Client, Got, Hello, New, Old, Version, fresh, kept, message, qos, with};
use crate::node::{Node, open, until, users};

/// Two messages on their way to a client, no more.
fn two_at_once() -> Limits {
    Limits { send_max: 2, ..Limits::default() }
}

async fn member(node: &Node, version: Version, client: &str, hello: Hello) -> Client {
    let (mut member, _) = Client::connect(node.address, version, client, hello).await;
    member.subscribe("$share/g/t", 2).await;
    member
}

/// Publishes messages of these levels, each of one byte: its number.
async fn publish(node: &Node, version: Version, levels: &[u8]) {
    let (mut from, _) = Client::connect(node.address, version, "from", fresh()).await;
    for (n, level) in (1..).zip(levels) {
        from.publish("t", &[n], *level, n.into()).await;
        from.get().await;
    }
    from.bye().await;
}

/// Acknowledges what comes, until there is nothing more.
async fn take(member: &mut Client) -> Vec<u8> {
    let (mut taken, mut unreleased) = (Vec::new(), 0);
    loop {
        // A PUBREL waits for the disk: it comes when it does.
        let got = if unreleased > 0 { vec![member.get().await] } else { member.quiet().await };
        if got.is_empty() {
            return taken;
        }
        for got in got {
            match got {
                Got::Message(message) => {
                    taken.push(message.payload[0]);
                    let packet = message.packet_id.unwrap().get();
                    unreleased += usize::from(message.qos == qos(2));
                    member.ack(if message.qos == qos(2) { 0x50 } else { 0x40 }, packet).await;
                }
                Got::PubRel(packet, 0) => {
                    unreleased -= 1;
                    member.ack(0x70, packet).await;
                }
                other => panic!("nobody asked for {other:?}"),
            }
        }
    }
}

/// Connects as the first member, and waits for the answer.
fn connect(node: &Node, hello: Hello) -> JoinHandle<(Client, Got)> {
    let address = node.address;
    tokio::spawn(async move {
        let mut client = Client::open(address, New).await;
        let got = client.hello("first", hello).await;
        (client, got)
    })
}

async fn nothing_in_memory(node: &Node) {
    until("everything to be out of memory", async || node.broker.counts().memory == 0).await;
}

#[tokio::test]
async fn what_is_in_memory_alone_goes_to_another_member() {
    for version in BOTH {
        let node = Node::limited(two_at_once()).await;
        let mut first = member(&node, version, "first", fresh()).await;
        publish(&node, version, &[1, 1, 1, 1, 1]).await;
        let sent = [first.message().await, first.message().await];
        first.ack(0x40, sent[0].packet_id.unwrap().get()).await;
        assert_eq!(first.message().await.payload[..], [3]);
        let mut second = member(&node, version, "second", fresh()).await;
        assert_eq!(second.quiet().await, [], "the first is still there");
        first.drop_dead().await;
        let got = second.message().await;
        assert_eq!((&got.payload[..], got.dup), (&[2][..], false), "what was acknowledged is done with");
        second.ack(0x40, got.packet_id.unwrap().get()).await;
        assert_eq!(take(&mut second).await, [3, 4, 5]);
        nothing_in_memory(&node).await;
    }
}

#[tokio::test]
async fn what_may_have_been_sent_at_qos_2_goes_to_nobody_else() {
    for hello in [fresh(), kept()] {
        let node = Node::limited(two_at_once()).await;
        let mut first = member(&node, New, "first", hello).await;
        publish(&node, New, &[2, 1, 2, 1]).await;
        let sent = [first.message().await, first.message().await];
        assert_eq!(sent.map(|message| message.payload[0]), [1, 2]);
        let mut second = member(&node, New, "second", fresh()).await;
        node.broker.disconnect("first", true).await.unwrap();
        until("the queue to be handed over", async || node.journal.state().sessions.is_empty()).await;
        assert_eq!(take(&mut second).await, [2, 3, 4]);
        nothing_in_memory(&node).await;
    }
}

#[tokio::test]
async fn what_is_under_commit_when_a_member_goes_is_not_lost_with_it() {
    for hello in [fresh(), kept()] {
        let node = Node::new().await;
        node.journal.capture("t");
        let first = member(&node, Old, "first", hello).await;
        let mut second = member(&node, Old, "second", kept()).await;
        second.unsubscribe("$share/g/t").await;
        node.journal.hold();
        let (mut from, _) = Client::connect(node.address, Old, "from", fresh()).await;
        from.publish("t", b"\x01", 1, 1).await;
        until("the message to be under commit", async || node.journal.held() > 0).await;
        // The subscription itself is one of the commits that follow; what counts is that the member is there.
        let subscribing = tokio::spawn(async move {
            second.subscribe("$share/g/t", 1).await;
            second
        });
        until("the subscription to be there", async || node.journal.held() > 1).await;
        node.broker.disconnect("first", true).await.unwrap();
        node.journal.release();
        let mut second = subscribing.await.unwrap();
        assert_eq!(second.message().await.payload[..], [1]);
        assert_eq!(from.get().await, Got::PubAck(1, 0));
        drop(first);
    }
}

#[tokio::test]
async fn a_queue_in_the_journal_goes_to_another_member_however_the_session_ends() {
    enum End {
        Forgotten,
        Expires,
        Leaves,
        StartsAnew,
    }
    for end in [End::Forgotten, End::Expires, End::Leaves, End::StartsAnew] {
        let node = Node::new().await;
        let mut first = member(&node, New, "first", kept()).await;
        first.subscribe("t", 1).await;
        first.drop_dead().await;
        node.gone("first").await;
        // More than are read at once; and each is in the queue for the client alone, too.
        publish(&node, New, &[1; 200]).await;
        assert_eq!(node.journal.queued("first"), 400);
        let mut second = member(&node, New, "second", kept()).await;
        match end {
            End::Forgotten => assert!(node.broker.disconnect("first", true).await.unwrap()),
            End::Expires => {
                let brief = Hello { expiry: 1, ..Hello::default() };
                let (first, present) = Client::connect(node.address, New, "first", brief).await;
                assert!(present);
                first.drop_dead().await;
            }
            End::Leaves => {
                let (mut first, present) = Client::connect(node.address, New, "first", kept()).await;
                assert!(present);
                first.raw(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
                while first.get().await != Got::End {}
            }
            End::StartsAnew => {
                let (first, present) = Client::connect(node.address, New, "first", fresh()).await;
                assert!(!present);
                first.bye().await;
            }
        }
        until("the old session to be forgotten", async || node.journal.state().sessions.len() == 1).await;
        assert_eq!(take(&mut second).await, (1..=200).collect::<Vec<_>>());
        until("the books to balance", async || node.broker.queued().await.unwrap() == 0).await;
        nothing_in_memory(&node).await;
    }
}

/// One has room for a few, another for more: nobody is given what it has no room for while others have, and what nobody has room
/// for stays where it is.
#[tokio::test]
async fn nobody_is_given_more_than_its_queue_takes() {
    let node = Node::limited(Limits { queue_messages: 10, ..Limits::default() }).await;
    member(&node, New, "first", kept()).await.bye().await;
    publish(&node, New, &[1; 10]).await;
    let mut second = member(&node, New, "second", kept()).await;
    second.subscribe("own", 1).await;
    second.bye().await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    for n in 0..8 {
        from.put("own", &[100 + n]).await;
    }
    member(&node, New, "third", kept()).await.bye().await;
    assert!(node.broker.disconnect("first", true).await.unwrap());
    until("the old session to be forgotten", async || node.journal.state().sessions.len() == 2).await;
    assert_eq!((node.journal.queued("second"), node.journal.queued("third")), (10, 8));
    // Now the third goes, and the second takes no more: a restart changes nothing about that.
    assert!(node.broker.disconnect("third", true).await.unwrap());
    until("its end to be on the disk", async || node.journal.state().sessions["third"].record.expiry_s == 0).await;
    let again = node.crash(Duration::ZERO).await;
    assert_eq!(again.journal.queued("third"), 8);
    let (mut second, _) = Client::connect(again.address, New, "second", kept()).await;
    let mut taken = take(&mut second).await;
    until("the old session to be forgotten", async || again.journal.state().sessions.len() == 1).await;
    taken.extend(take(&mut second).await);
    taken.retain(|n| *n < 100);
    taken.sort_unstable();
    assert_eq!(taken, (1..=10).collect::<Vec<_>>());
    assert_eq!(again.broker.counts().dropped_full, 0);
}

/// Whoever has its queue in memory alone gets a long one as it takes it.
#[tokio::test]
async fn a_long_queue_waits_for_a_member_with_little_room() {
    let limits = Limits { outbound_bytes: 2_000, send_max: 4, ..Limits::default() };
    let node = Node::limited(limits).await;
    member(&node, New, "first", kept()).await.bye().await;
    publish(&node, New, &[1; 200]).await;
    let mut second = member(&node, New, "second", fresh()).await;
    assert!(node.broker.disconnect("first", true).await.unwrap());
    let mut taken = Vec::new();
    while taken.len() < 200 {
        let message = second.message().await;
        taken.push(message.payload[0]);
        second.ack(0x40, message.packet_id.unwrap().get()).await;
    }
    taken.sort_unstable();
    assert_eq!(taken, (1..=200).collect::<Vec<_>>());
    until("the old session to be forgotten", async || node.journal.state().sessions.is_empty()).await;
    assert_eq!(node.broker.counts().dropped_full, 0);
    nothing_in_memory(&node).await;
}

#[tokio::test]
async fn a_member_without_acknowledgements_inherits_nothing() {
    let node = Node::new().await;
    member(&node, New, "first", kept()).await.bye().await;
    publish(&node, New, &[1, 1]).await;
    let (mut second, _) = Client::connect(node.address, New, "second", fresh()).await;
    second.subscribe("$share/g/t", 0).await;
    let mut third = member(&node, New, "third", kept()).await;
    assert!(node.broker.disconnect("first", true).await.unwrap());
    until("the old session to be forgotten", async || node.journal.state().sessions.len() == 1).await;
    assert_eq!(take(&mut third).await, [1, 2]);
    assert_eq!(second.quiet().await, []);
}

#[tokio::test]
async fn what_has_expired_or_is_the_clients_own_ends_with_its_session() {
    let node = Node::new().await;
    let mut first = member(&node, New, "first", kept()).await;
    first.subscribe("own", 1).await;
    first.bye().await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    from.put("own", b"x").await;
    let brief = rmqtt_codec::v5::PublishProperties {
        message_expiry_interval: std::num::NonZeroU32::new(100),
        ..Default::default()
    };
    from.publish_with(with(message("t", b"x", 1, 1), brief)).await;
    assert_eq!(from.get().await, Got::PubAck(1, 0));
    let mut second = member(&node, New, "second", fresh()).await;
    node.time.jump(200);
    node.broker.disconnect("first", true).await.unwrap();
    until("the session to be forgotten", async || node.journal.state().sessions.is_empty()).await;
    assert_eq!(second.quiet().await, []);
    // With nobody left in the group there is nobody to wait for.
    node.broker.disconnect("second", true).await.unwrap();
    let alone = member(&node, New, "alone", kept()).await;
    alone.bye().await;
    from.put("t", b"x").await;
    node.broker.disconnect("alone", true).await.unwrap();
    until("the session to be forgotten", async || node.journal.state().sessions.is_empty()).await;
}

/// The power goes after each of the commits that hand a queue over: what is where by then is nowhere else, and the next start
/// goes on.
#[tokio::test]
async fn a_crash_in_the_middle_neither_loses_nor_doubles() {
    let mut commits = 0;
    loop {
        let node = Node::new().await;
        member(&node, New, "first", kept()).await.bye().await;
        publish(&node, New, &[1; 200]).await;
        member(&node, New, "second", kept()).await.bye().await;
        node.gone("second").await;
        node.journal.hold();
        assert!(node.broker.disconnect("first", true).await.unwrap());
        for _ in 0..commits {
            until("the next commit", async || node.journal.held() > 0).await;
            node.journal.keep_first();
        }
        let again = node.crash(Duration::ZERO).await;
        let first = node.journal.state().sessions.get("first").map(|session| session.record.expiry_s);
        if first.is_some_and(|expiry_s| expiry_s > 0) {
            // Nothing says yet that it has ended.
            assert!(again.broker.disconnect("first", true).await.unwrap());
        }
        until("the old session to be forgotten", async || again.journal.state().sessions.len() == 1).await;
        let (mut second, present) = Client::connect(again.address, New, "second", kept()).await;
        assert!(present);
        assert_eq!(take(&mut second).await, (1..=200).collect::<Vec<_>>(), "after {commits} commits");
        if first.is_none() {
            assert!(commits >= 3, "two parts, and the end");
            break;
        }
        commits += 1;
    }
}

#[tokio::test]
async fn a_disk_that_is_full_keeps_the_queue_until_it_has_room() {
    for version in BOTH {
        let node = Node::new().await;
        member(&node, version, "first", kept()).await.bye().await;
        publish(&node, version, &[1, 1, 2]).await;
        let mut second = member(&node, version, "second", kept()).await;
        node.journal.fail(Some(Kind::StorageFull));
        let mut first = Client::open(node.address, version).await;
        let got = first.hello("first", fresh()).await;
        assert!(
            matches!((version, &got), (Old, Got::ConnAck(false, 3, _)) | (New, Got::ConnAck(false, 0x97, _))),
            "{got:?}"
        );
        assert_eq!(second.quiet().await, []);
        assert_eq!(node.journal.queued("first"), 3);
        node.journal.fail(None);
        until("the queue to be handed over", async || node.journal.state().sessions.len() == 1).await;
        assert_eq!(take(&mut second).await, [1, 2, 3]);
        until("the books to balance", async || node.broker.queued().await.unwrap() == 0).await;
    }
}

/// Two connect as the same client while its last queue is handed over: the later one is accepted.
#[tokio::test]
async fn who_connects_meanwhile_is_accepted_when_the_queue_is_handed_over() {
    let node = Node::with(Limits::default(), open(), Default::default(), Duration::ZERO).await;
    member(&node, New, "first", kept()).await.bye().await;
    publish(&node, New, &[1, 1]).await;
    let mut second = member(&node, New, "second", kept()).await;
    node.journal.hold();
    let early = connect(&node, fresh());
    until("the session to end", async || node.journal.held() > 0).await;
    let late = connect(&node, kept());
    let (_, got) = early.await.unwrap();
    assert!(matches!(got, Got::ConnAck(false, 0x88, _)), "{got:?}");
    assert!(!late.is_finished());
    node.journal.release();
    let (_client, got) = late.await.unwrap();
    assert!(matches!(got, Got::ConnAck(false, 0, _)), "{got:?}");
    assert_eq!(take(&mut second).await, [1, 2]);
}

/// It is not kept out by others who do not come to take what it has left.
#[tokio::test]
async fn a_client_whose_heirs_have_no_room_is_accepted_all_the_same() {
    let node = Node::limited(Limits { queue_messages: 5, ..Limits::default() }).await;
    member(&node, New, "first", kept()).await.bye().await;
    publish(&node, New, &[1; 5]).await;
    member(&node, New, "second", kept()).await.bye().await;
    let (mut third, _) = Client::connect(node.address, New, "third", kept()).await;
    third.subscribe("$share/g/t", 1).await;
    third.bye().await;
    assert!(node.broker.disconnect("first", true).await.unwrap());
    until("the old session to be forgotten", async || node.journal.state().sessions.len() == 2).await;
    let held = || (node.journal.queued("second"), node.journal.queued("third"));
    let shares = held();
    assert_eq!(shares.0 + shares.1, 5);
    publish(&node, New, &[1; 5]).await;
    assert_eq!(held(), (5, 5));
    let (third, present) = Client::connect(node.address, New, "third", fresh()).await;
    assert!(!present);
    assert_eq!(held(), (5, 0));
    assert_eq!(node.broker.counts().dropped_full, 5);
    third.bye().await;
}

/// Retries on a full disk do not use up the packet identifiers of a queue that nobody takes from.
#[tokio::test]
async fn a_queue_takes_messages_after_any_number_that_could_not_be_kept() {
    let node = Node::new().await;
    let (mut away, _) = Client::connect(node.address, New, "away", kept()).await;
    away.subscribe("t", 1).await;
    away.bye().await;
    let (mut from, _) = Client::connect(node.address, New, "from", fresh()).await;
    from.put("t", b"1").await;
    node.journal.fail(Some(Kind::StorageFull));
    for _ in 0..330 {
        for packet in 1..=200 {
            from.publish("t", b"x", 1, packet).await;
        }
        for packet in 1..=200 {
            assert_eq!(from.get().await, Got::PubAck(packet, 0x97));
        }
    }
    node.journal.fail(None);
    from.put("t", b"2").await;
    let (mut away, _) = Client::connect(node.address, New, "away", kept()).await;
    assert_eq!([away.message().await.payload, away.message().await.payload], ["1", "2"]);
}

/// Sessions that end one after the other while nobody takes what they leave are as many as sessions may be.
#[tokio::test]
async fn a_session_that_has_ended_counts_until_its_queue_is_handed_over() {
    let node = Node::limited(Limits { sessions: 5, queue_messages: 1, ..Limits::default() }).await;
    member(&node, New, "first", kept()).await.bye().await;
    publish(&node, New, &[1]).await;
    member(&node, New, "second", kept()).await.bye().await;
    publish(&node, New, &[1]).await;
    assert_eq!((node.journal.queued("first"), node.journal.queued("second")), (1, 1));
    assert!(node.broker.disconnect("first", true).await.unwrap());
    let (_third, _) = Client::connect(node.address, New, "third", fresh()).await;
    let got = Client::open(node.address, New).await.hello("fourth", fresh()).await;
    assert!(matches!(got, Got::ConnAck(false, 0x97, _)), "{got:?}");
    let (mut second, _) = Client::connect(node.address, New, "second", kept()).await;
    assert_eq!(take(&mut second).await.len(), 1);
    until("the old session to be forgotten", async || node.journal.state().sessions.len() == 1).await;
    let (_fourth, _) = Client::connect(node.address, New, "fourth", fresh()).await;
}

/// Nobody waits for a name that another user already waits for.
#[tokio::test]
async fn a_name_that_somebody_waits_for_is_not_another_users() {
    let access = users(&["ann", "bob"]);
    let node = Node::with(Limits::default(), access, Default::default(), Duration::ZERO).await;
    let (ann, bob) = (Some(("ann", "pw")), Some(("bob", "pw")));
    member(&node, New, "first", Hello { user: ann, ..kept() }).await.bye().await;
    publish(&node, New, &[1, 1]).await;
    let mut second = member(&node, New, "second", kept()).await;
    node.journal.hold();
    let anns = connect(&node, Hello { user: ann, ..fresh() });
    until("the session to end", async || node.journal.held() > 0).await;
    let (_, got) = connect(&node, Hello { user: bob, ..fresh() }).await.unwrap();
    assert!(matches!(got, Got::ConnAck(false, 0x87, _)), "{got:?}");
    node.journal.release();
    let (_client, got) = anns.await.unwrap();
    assert!(matches!(got, Got::ConnAck(false, 0, _)), "{got:?}");
    assert_eq!(take(&mut second).await, [1, 2]);
}

#[tokio::test]
async fn a_node_that_stops_leaves_what_is_in_memory_to_a_queue_that_outlives_it() {
    let node = Node::limited(two_at_once()).await;
    let mut first = member(&node, New, "first", fresh()).await;
    publish(&node, New, &[1; 5]).await;
    let sent = [first.message().await, first.message().await];
    first.ack(0x40, sent[0].packet_id.unwrap().get()).await;
    assert_eq!(first.message().await.payload[..], [3]);
    let _second = member(&node, New, "second", fresh()).await;
    member(&node, New, "third", kept()).await.bye().await;
    node.gone("third").await;
    assert_eq!(node.broker.stop().await, 0);
    let left = &node.journal.state().sessions["third"].queue;
    let mut left: Vec<_> = left.values().map(|queued| queued.message.payload[0]).collect();
    left.sort_unstable();
    assert_eq!(left, [2, 3, 4, 5]);
}

/// The next start goes on with what a stop has interrupted; who waited for it is told.
#[tokio::test]
async fn a_node_that_stops_keeps_nobody_waiting_for_a_handover() {
    let node = Node::new().await;
    member(&node, New, "first", kept()).await.bye().await;
    publish(&node, New, &[1; 200]).await;
    let second = member(&node, New, "second", kept()).await;
    node.journal.hold();
    let waiting = connect(&node, fresh());
    until("the session to end", async || node.journal.held() > 0).await;
    let broker = node.broker.clone();
    let stopped = tokio::spawn(async move { broker.stop().await });
    let (_, got) = waiting.await.unwrap();
    assert!(matches!(got, Got::ConnAck(false, 0x88, _)), "{got:?}");
    node.journal.release();
    assert_eq!(stopped.await.unwrap(), 0);
    drop(second);
    let again = node.crash(Duration::ZERO).await;
    until("the old session to be forgotten", async || again.journal.state().sessions.len() == 1).await;
    let (mut second, present) = Client::connect(again.address, New, "second", kept()).await;
    assert!(present);
    assert_eq!(take(&mut second).await, (1..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_queue_that_can_be_read_again_is_handed_over() {
    let node = Node::new().await;
    member(&node, New, "first", kept()).await.bye().await;
    publish(&node, New, &[1, 1]).await;
    let mut second = member(&node, New, "second", kept()).await;
    node.journal.unreadable(true);
    let reads = node.journal.reads();
    assert!(node.broker.disconnect("first", true).await.unwrap());
    until("the queue to be read in vain", async || node.journal.reads() > reads).await;
    assert_eq!(second.quiet().await, []);
    node.journal.unreadable(false);
    assert_eq!(second.message().await.payload[..], [1]);
    until("the old session to be forgotten", async || node.journal.state().sessions.len() == 1).await;
    assert_eq!(node.journal.queued("second"), 2);
}

/// Whoever needs its name is told a few times that it cannot be had yet, and has it then.
#[tokio::test]
async fn a_queue_that_cannot_be_read_does_not_keep_its_name_for_ever() {
    let node = Node::new().await;
    member(&node, New, "first", kept()).await.bye().await;
    publish(&node, New, &[1, 1]).await;
    let mut second = member(&node, New, "second", kept()).await;
    node.journal.unreadable(true);
    let mut refused = 0;
    loop {
        match connect(&node, fresh()).await.unwrap() {
            (_, Got::ConnAck(false, 0x80, _)) => refused += 1,
            (_client, Got::ConnAck(false, 0, _)) => break,
            (_, other) => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, 3);
    until("the old session to be forgotten", async || node.journal.state().sessions.len() == 1).await;
    assert_eq!(second.quiet().await, []);
}
