//! `marram stream`: events go in and come out, are followed, delivered again, and tended when nobody takes them.

use marram_testkit::eventually;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Node, folder, lines};

const CONSUMER: &str = "plant/take/stream:readings";

/// An app that takes what is published to `readings`, except for what is bad.
fn consumer() -> TempDir {
    let app = folder();
    let script = "export default { async fetch(request) {\n    const data = await request.text();\n    \
        return new Response(null, { status: data.includes(\"bad\") ? 400 : 204 });\n} }\n";
    let manifest = "manifest_version = 1\n[app]\nname = \"plant\"\n[[function]]\nname = \"take\"\n\
        component = \"index.js\"\non = [{ stream = \"readings\" }]\n";
    std::fs::write(app.path().join("index.js"), script).unwrap();
    std::fs::write(app.path().join("marram.toml"), manifest).unwrap();
    app
}

/// Waits until the consumer has acknowledged and given up on so many.
async fn settled(node: &Node, acked: u64, dead: u64) {
    eventually("every event is settled", || async {
        let streams = lines(&node.marram(&["stream", "ls", "--json"]).done().await);
        let readings = streams.iter().find(|stream| stream["name"] == "readings")?;
        let consumer = &readings["consumers"][0];
        assert_eq!(consumer["id"], CONSUMER);
        (consumer["acked"] == acked && consumer["dead_lettered"] == dead).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_published_is_kept_and_comes_out_as_cloudevents() {
    let node = Node::start().await;
    let stream = |args: &[&str]| node.marram(&[&["stream"], args].concat());
    stream(&["ls"]).run().await.expect(0).without_data().says(&["no streams yet", "hint: "]);
    stream(&["publish", "readings", "-d", "@none"]).run().await.expect(5).without_data().says(&["cannot open none"]);
    stream(&["publish", "readings", "--id", ""]).run().await.expect(6).without_data().says(&["`id`", "required"]);
    for verb in [&["tail", "readings", "--no-follow"][..], &["dlq", "readings"]] {
        stream(verb).run().await.expect(5).without_data().says(&["there is no stream \"readings\""]);
    }

    let first = [
        "publish",
        "readings",
        "-d",
        r#"{"rms":1.5}"#,
        "--id",
        "a",
        "--type",
        "com.example.reading",
        "--subject",
        "p7",
    ];
    let said = |position: u64, duplicate: bool| json!({ "position": position, "duplicate": duplicate });
    assert_eq!(stream(&[&first[..], &["--json"]].concat()).json().await, said(1, false));
    assert_eq!(stream(&[&first[..], &["--json"]].concat()).json().await, said(1, true));
    stream(&first).run().await.expect(0).without_data().says(&["published at 1 (it was there already)"]);
    stream(&["publish", "readings", "-d", "plain"]).run().await.expect(0).without_data().says(&["published at 2"]);
    stream(&["publish", "readings", "-d", "17", "--content-type", "text/x"]).run().await.expect(0);
    stream(&["publish", "readings"]).run().await.expect(0);
    let batch = r#"[{"specversion":"1.0","id":"b","source":"/s","type":"t","data_base64":"AAAAAA=="},
        {"specversion":"1.0","id":"c","source":"/s","type":"t"}]"#;
    let published = stream(&["publish", "readings", "--cloudevents", "-d", "@-"]).stdin(batch).run().await.expect(0);
    assert_eq!(published.stderr, "published 2 events, the last at 6\n");
    let again = ["publish", "readings", "--cloudevents", "--json", "-d", "@-"];
    let again = lines(&stream(&again).stdin(batch).done().await);
    assert_eq!(again, [said(5, true), said(6, true)]);

    let tail = stream(&["tail", "readings", "--from", "1", "--no-follow", "--json"]).run().await.expect(0);
    assert_eq!(tail.stderr, "");
    let events = lines(&tail.stdout);
    let positions: Vec<_> = events.iter().map(|event| event["marramposition"].as_str().unwrap()).collect();
    assert_eq!(positions, ["1", "2", "3", "4", "5", "6"], "{events:?}");
    for event in &events {
        assert_eq!(event["specversion"], "1.0", "{event}");
        for attribute in ["id", "source", "type"] {
            assert!(event[attribute].as_str().is_some_and(|text| !text.is_empty()), "{attribute} of {event}");
        }
    }
    let of = |at: usize, names: [&str; 3]| names.map(|name| events[at][name].clone());
    assert_eq!(of(0, ["id", "type", "subject"]), [json!("a"), json!("com.example.reading"), json!("p7")]);
    let data = ["datacontenttype", "data", "data_base64"];
    assert_eq!(of(0, data), [json!("application/json"), json!({ "rms": 1.5 }), Value::Null]);
    assert_eq!(of(1, data), [json!("text/plain"), json!("plain"), Value::Null]);
    assert_eq!(events[2]["datacontenttype"], "text/x", "what is said is not guessed");
    assert_eq!(of(3, data), [Value::Null, Value::Null, Value::Null], "an event without data");
    assert_eq!(events[4]["data_base64"], "AAAAAA==");

    let some = lines(&stream(&["tail", "readings", "--from", "3", "-n", "2", "--no-follow", "--json"]).done().await);
    assert_eq!(some, events[2..4]);
    let shown = stream(&["tail", "readings", "--no-follow"]).done().await;
    let shown: Vec<_> = shown.lines().collect();
    assert!(shown[0].starts_with("1  ") && shown[0].ends_with("com.example.reading  p7  {\"rms\":1.5}"), "{shown:?}");
    assert!(shown[4].ends_with("t  4 bytes"), "{shown:?}");
    stream(&["tail", "readings", "--from", "yesterday"]).run().await.expect(6).without_data().says(&["first"]);

    stream(&["publish", "alarms", "-d", "fire\n2  2026-11-24T04:09:29Z  forged"]).done().await;
    stream(&["publish", "alarms", "-d", "{\n  \"n\": 1.10\n}"]).done().await;
    let shown = stream(&["tail", "alarms", "--no-follow"]).done().await;
    let shown: Vec<_> = shown.lines().collect();
    assert_eq!(shown.len(), 2, "an event is a line: {shown:?}");
    assert!(shown[0].ends_with(r"  fire\n2  2026-11-24T04:09:29Z  forged"), "{shown:?}");
    assert!(shown[1].ends_with(r#"  { "n": 1.10 }"#), "{shown:?}");
    let listed = lines(&stream(&["ls", "--json"]).done().await);
    let listed: Vec<_> = listed.iter().map(|stream| (stream["name"].as_str().unwrap(), &stream["events"])).collect();
    assert_eq!(listed, [("alarms", &json!(2)), ("readings", &json!(6))]);
    let shown = stream(&["ls"]).done().await;
    assert!(shown.contains("STREAM") && shown.contains("alarms") && shown.contains("readings"), "{shown}");
    stream(&["rm", "alarms"]).run().await.expect(0).without_data().says(&["removed alarms"]);
    assert_eq!(lines(&stream(&["ls", "--json"]).done().await).len(), 1);
}

#[tokio::test]
async fn a_tail_follows_until_it_has_enough_or_the_node_ends() {
    let node = Node::start().await;
    let stream = |args: &[&str]| node.marram(&[&["stream"], args].concat());
    let publish = |id: &'static str| {
        let publish = stream(&["publish", "readings", "-d", "1", "--id", id]);
        async move { publish.done().await }
    };
    publish("one").await;
    let mut enough = stream(&["tail", "readings", "--from", "first", "-n", "2", "--json"]).start().await;
    let mut on = stream(&["tail", "readings", "--from", "first", "--json"]).start().await;
    for tail in [&mut enough, &mut on] {
        tail.prints("\"one\"").await;
    }
    publish("two").await;
    publish("three").await;
    let enough = enough.ended().await.expect(0);
    let ids = |text: &str| lines(text).iter().map(|event| event["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&enough.stdout), ["one", "two"]);
    on.prints("\"three\"").await;
    node.drain().await.expect(0);
    let ended = on.ended().await.expect(1).says(&["the node ended the stream"]);
    assert_eq!(ids(&ended.stdout), ["one", "two", "three"]);
}

#[tokio::test]
async fn what_is_not_taken_is_a_dead_letter_and_a_replay_delivers_again() {
    let node = Node::start().await;
    let app = consumer();
    node.deploy(app.path()).await;
    let manifest = app.path().join("marram.toml");
    let again = std::fs::read_to_string(&manifest).unwrap() + "# Another revision.\n";
    std::fs::write(&manifest, again).unwrap();
    node.deploy(app.path()).await;
    node.marram(&["rollback", "plant"]).run().await.expect(0).says(&["rolled back plant", "events: stream:readings"]);
    let stream = |args: &[&str]| node.marram(&[&["stream"], args].concat());
    stream(&["dlq", "readings"]).run().await.expect(0).without_data().says(&["readings has no dead letters"]);
    assert_eq!(stream(&["dlq", "readings", "--json"]).done().await, "");
    for data in ["\"good\"", "\"bad\""] {
        stream(&["publish", "readings", "-d", data]).done().await;
    }
    settled(&node, 1, 1).await;
    let shown = stream(&["ls"]).done().await;
    assert!(shown.contains(CONSUMER) && shown.contains("readings.dead"), "{shown}");
    let dead = lines(&stream(&["dlq", "readings", "--json"]).done().await);
    assert_eq!(dead.len(), 1);
    assert_eq!((&dead[0]["data"], &dead[0]["marramconsumer"]), (&json!("bad"), &json!(CONSUMER)));
    assert!(dead[0]["marramreason"].as_str().unwrap().contains("400"), "{dead:?}");
    let shown = stream(&["dlq", "readings"]).done().await;
    let itself = stream(&["dlq", "readings.dead"]).run().await.expect(2).without_data();
    itself.says(&["readings.dead", "hint: name the stream: `marram stream dlq readings`"]);
    assert!(shown.contains("WHY") && shown.contains(dead[0]["id"].as_str().unwrap()), "{shown}");

    let moved = stream(&["replay", "readings", "--consumer", CONSUMER, "--from", "first", "--json"]).json().await;
    assert_eq!((&moved["id"], &moved["cursor"]), (&json!(CONSUMER), &json!(0)));
    settled(&node, 2, 2).await;
    let moved = stream(&["replay", "readings", "--consumer", CONSUMER, "--from", "2"]).run().await.expect(0);
    moved.without_data().says(&[&format!("{CONSUMER} goes on at 2")]);
    settled(&node, 2, 3).await;
    let nobody = stream(&["replay", "readings", "--consumer", "nobody", "--from", "1"]).run().await;
    nobody.expect(5).without_data().says(&["nobody", "marram stream ls"]);

    // They are put back behind what is there, and are as bad as before.
    assert_eq!(stream(&["dlq", "readings", "--redrive", "--json"]).json().await, json!({ "redriven": 3 }));
    settled(&node, 2, 6).await;
    let pause = |args: &[&str]| stream(&[&["pause", "readings", "--consumer", CONSUMER], args].concat());
    assert_eq!(pause(&["--json"]).json().await["paused"], json!(true));
    pause(&["--resume"]).run().await.expect(0).without_data().says(&["resumed"]);

    let refused = stream(&["rm", "readings"]).run().await.expect(7);
    refused.without_data().says(&["\"readings\" cannot be removed", "app \"plant\" consumes it", "marram rm"]);
    stream(&["rm", "readings.dead"]).run().await.expect(0);
    node.marram(&["rm", "plant"]).run().await.expect(0);
    stream(&["rm", "readings"]).run().await.expect(0).without_data().says(&["removed readings"]);
}
