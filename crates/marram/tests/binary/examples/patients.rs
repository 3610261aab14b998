//! Patient monitoring: the score of every border, and alarms that are told once.

use marram_testkit::{eventually, get};
use serde_json::{Value, json};

use super::{Site, example};
use crate::support::home;

async fn ward() -> Site {
    let site = Site::start_in(home("[mqtt]\nlisten = \"127.0.0.1:0\"\n").await).await;
    site.node.deploy(&example("patients")).await;
    site
}

/// A reading that scores 0, with these changes.
fn reading(changes: &Value) -> Value {
    let mut reading = json!({
        "respiration": 16, "spo2": 98, "scale": 1, "oxygen": false, "systolic": 120, "pulse": 70, "consciousness": "A",
        "temperature": 37.0
    });
    for (name, value) in changes.as_object().unwrap() {
        reading[name] = value.clone();
    }
    reading
}

impl Site {
    async fn board(&self) -> Vec<Value> {
        let reply = self.node.http.send(get("/").header("accept", "application/json")).await.expect(200);
        reply.json()["beds"].as_array().unwrap().clone()
    }

    /// The state of a bed once its last reading is one with this value.
    async fn bed(&self, bed: &str, name: &str, value: &Value) -> Value {
        eventually(&format!("bed {bed} has {name} {value}"), || async {
            self.board().await.into_iter().find(|shown| shown["bed"] == bed && shown["reading"][name] == *value)
        })
        .await
    }

    /// Every change of an alarm so far: of which bed, what, and to what.
    async fn alarms(&self) -> Vec<(String, String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let events = self.events("alarms").await;
        events.iter().map(|one| (text(&one["subject"]), text(&one["type"]), text(&one["data"]["alarm"]))).collect()
    }
}

fn told(bed: &str, changes: &[(&str, &str)]) -> Vec<(String, String, String)> {
    changes.iter().map(|(what, to)| (bed.to_owned(), format!("ward.alarm.{what}"), (*to).to_owned())).collect()
}

/// Both ends of every band of NEWS2's chart 1: a reading's changes, the parameter, and its points.
fn borders() -> Vec<(Value, &'static str, u64)> {
    let mut borders = Vec::new();
    let mut whole = |name: &'static str, with: &Value, bands: &[(i64, u64)]| {
        for (value, points) in bands {
            let mut changes = with.clone();
            changes[name] = json!(value);
            borders.push((changes, name, *points));
        }
    };
    let (plain, air, oxygen) = (json!({}), json!({ "scale": 2 }), json!({ "scale": 2, "oxygen": true }));
    whole(
        "respiration",
        &plain,
        &[(0, 3), (8, 3), (9, 1), (11, 1), (12, 0), (20, 0), (21, 2), (24, 2), (25, 3), (100, 3)],
    );
    whole("spo2", &plain, &[(0, 3), (91, 3), (92, 2), (93, 2), (94, 1), (95, 1), (96, 0), (100, 0)]);
    let low = [(0, 3), (83, 3), (84, 2), (85, 2), (86, 1), (87, 1), (88, 0), (92, 0)];
    whole("spo2", &air, &low);
    whole("spo2", &air, &[(93, 0), (94, 0), (95, 0), (96, 0), (97, 0), (100, 0)]);
    whole("spo2", &oxygen, &low);
    whole("spo2", &oxygen, &[(93, 1), (94, 1), (95, 2), (96, 2), (97, 3), (100, 3)]);
    whole(
        "systolic",
        &plain,
        &[(0, 3), (90, 3), (91, 2), (100, 2), (101, 1), (110, 1), (111, 0), (219, 0), (220, 3), (350, 3)],
    );
    let pulse = [
        (0, 3),
        (40, 3),
        (41, 1),
        (50, 1),
        (51, 0),
        (90, 0),
        (91, 1),
        (110, 1),
        (111, 2),
        (130, 2),
        (131, 3),
        (350, 3),
    ];
    whole("pulse", &plain, &pulse);
    let temperatures = [
        (10.0, 3),
        (35.0, 3),
        (35.04, 3),
        (35.1, 1),
        (36.0, 1),
        (36.1, 0),
        (38.0, 0),
        (38.1, 1),
        (39.0, 1),
        (39.1, 2),
        (47.0, 2),
    ];
    borders.extend(temperatures.map(|(value, points)| (json!({ "temperature": value }), "temperature", points)));
    borders.extend(
        [("A", 0), ("C", 3), ("V", 3), ("P", 3), ("U", 3)]
            .map(|(value, points)| (json!({ "consciousness": value }), "consciousness", points)),
    );
    borders.extend([(false, 0), (true, 2)].map(|(value, points)| (json!({ "oxygen": value }), "oxygen", points)));
    borders
}

/// Sums, and what they mean by chart 2.
fn risks() -> [(Value, u64, &'static str, &'static str); 9] {
    [
        (json!({}), 0, "low", "none"),
        (json!({ "pulse": 95, "spo2": 95, "systolic": 95 }), 4, "low", "none"),
        (json!({ "pulse": 131 }), 3, "low-medium", "low-medium"),
        (json!({ "pulse": 131, "temperature": 36.0 }), 4, "low-medium", "low-medium"),
        (json!({ "pulse": 95, "spo2": 93, "oxygen": true }), 5, "medium", "medium"),
        (json!({ "pulse": 131, "spo2": 93, "temperature": 36.0 }), 6, "medium", "medium"),
        (json!({ "pulse": 111, "spo2": 93, "respiration": 21, "temperature": 38.1 }), 7, "high", "high"),
        (json!({ "pulse": 111, "spo2": 93, "respiration": 21, "oxygen": true }), 8, "high", "high"),
        // The most that there is.
        (
            json!({ "respiration": 8, "spo2": 91, "oxygen": true, "systolic": 90, "pulse": 40, "consciousness": "U", "temperature": 35 }),
            20,
            "high",
            "high",
        ),
    ]
}

#[tokio::test]
async fn every_border_of_news2() {
    let site = ward().await;
    let (borders, risks) = (borders(), risks());
    for (n, (changes, ..)) in borders.iter().enumerate() {
        site.publish(&format!("ward/b{n}/vitals"), &[reading(changes)]).await;
    }
    for (n, (changes, ..)) in risks.iter().enumerate() {
        site.publish(&format!("ward/r{n}/vitals"), &[reading(changes)]).await;
    }
    let beds = eventually("every bed has a score", || async {
        let beds = site.board().await;
        (beds.len() == borders.len() + risks.len()).then_some(beds)
    });
    let beds = beds.await;
    let bed = |name: String| beds.iter().find(|bed| bed["bed"] == name).unwrap();
    for (n, (changes, name, points)) in borders.iter().enumerate() {
        let bed = bed(format!("b{n}"));
        let mut expected = json!({
            "respiration": 0, "spo2": 0, "oxygen": 0, "systolic": 0, "pulse": 0, "consciousness": 0, "temperature": 0
        });
        // Oxygen scores by itself wherever it is given.
        let oxygen = if changes["oxygen"] == true { 2 } else { 0 };
        expected["oxygen"] = json!(oxygen);
        expected[name] = json!(points);
        assert_eq!(bed["points"], expected, "{changes}");
        let score = if *name == "oxygen" { *points } else { points + oxygen };
        assert_eq!(bed["score"], score, "{changes}");
    }
    for (n, (changes, score, risk, alarm)) in risks.iter().enumerate() {
        let bed = bed(format!("r{n}"));
        assert_eq!(
            (&bed["score"], &bed["risk"], &bed["alarm"]),
            (&json!(score), &json!(risk), &json!(alarm)),
            "{changes}"
        );
    }
    site.node.drain().await.expect(0);
}

/// Readings with the pulse as a mark, so that a test can tell which was the last.
fn marked(changes: &Value, pulses: std::ops::RangeInclusive<u64>) -> Vec<Value> {
    pulses
        .map(|pulse| {
            let mut reading = reading(changes);
            reading["pulse"] = json!(pulse);
            reading
        })
        .collect()
}

#[tokio::test]
async fn an_alarm_is_told_when_it_changes_and_not_again() {
    let site = ward().await;
    let (calm, five, nine) = (
        json!({}),
        json!({ "spo2": 92, "respiration": 9, "oxygen": true }),
        json!({ "spo2": 91, "respiration": 8, "oxygen": true, "temperature": 36.0 }),
    );
    let topic = "ward/7/vitals";
    site.publish(topic, &marked(&calm, 60..=62)).await;
    site.bed("7", "pulse", &json!(62)).await;
    assert_eq!(site.alarms().await, []);

    // Around the border, 5 and 0 in turn: one alarm. While it stays, nothing is told, and its display has it.
    for pulse in 63..=70 {
        site.publish(topic, &marked(if pulse % 2 == 1 { &five } else { &calm }, pulse..=pulse)).await;
    }
    site.bed("7", "pulse", &json!(70)).await;
    let mut expected = told("7", &[("raised", "medium")]);
    assert_eq!(site.alarms().await, expected);
    let display = site.retained("ward/7/alarm").await;
    assert_eq!((&display["alarm"], &display["score"]), (&json!("medium"), &json!(5)), "{display}");

    // It gets worse once, also if that is said often; then better, and well.
    site.publish(topic, &marked(&nine, 71..=73)).await;
    site.publish(topic, &marked(&five, 74..=76)).await;
    site.publish(topic, &marked(&calm, 77..=78)).await;
    site.bed("7", "pulse", &json!(78)).await;
    expected.extend(told("7", &[("escalated", "high"), ("eased", "medium")]));
    assert_eq!(site.alarms().await, expected);
    site.publish(topic, &marked(&calm, 79..=85)).await;
    let bed = site.bed("7", "pulse", &json!(85)).await;
    expected.extend(told("7", &[("cleared", "none")]));
    assert_eq!(site.alarms().await, expected);
    assert_eq!((&bed["alarm"], &site.retained("ward/7/alarm").await["alarm"]), (&json!("none"), &json!("none")));
    site.node.drain().await.expect(0);
}

#[tokio::test]
async fn an_event_that_comes_again_changes_nothing_and_a_crash_forgets_nothing() {
    let site = ward().await;
    let topic = "ward/7/vitals";
    site.publish(topic, &marked(&json!({ "respiration": 25 }), 60..=60)).await;
    site.publish(topic, &marked(&json!({}), 61..=62)).await;
    let bed = site.bed("7", "pulse", &json!(62)).await;
    assert_eq!(bed["alarm"], "low-medium");

    // The second calm reading once more is not a third one.
    let replay = ["stream", "replay", "mqtt", "--consumer", "patients/vitals/mqtt:ward/+/vitals", "--from", "3"];
    site.node.marram(&replay).done().await;
    eventually("it was delivered again", || async {
        let streams = site.admin().get("/v1/streams").await.expect(200).json();
        let mqtt = streams["streams"].as_array().unwrap().iter().find(|stream| stream["name"] == "mqtt").cloned();
        (mqtt?["consumers"][0]["acked"] == 4).then_some(())
    })
    .await;
    let mut expected = told("7", &[("raised", "low-medium")]);
    assert_eq!(site.alarms().await, expected);

    // What a bed was in is known after a power cut; another calm reading is the third.
    site.node.running.kill().await;
    let site = Site::start_in(site.node.home).await;
    site.publish(topic, &marked(&json!({}), 63..=63)).await;
    let bed = site.bed("7", "pulse", &json!(63)).await;
    expected.extend(told("7", &[("cleared", "none")]));
    assert_eq!((&bed["alarm"], site.alarms().await), (&json!("none"), expected));
    assert_eq!(site.retained("ward/7/alarm").await["alarm"], "none");
    site.node.drain().await.expect(0);
}

/// Payloads that are refused, and a part of the reason.
fn refused() -> Vec<(String, &'static str)> {
    let changed = |changes: Value, why| (reading(&changes).to_string(), why);
    let mut refused = vec![
        ("pulse=70".to_owned(), "not JSON"),
        ("null".to_owned(), "`respiration` is no whole number"),
        ("[]".to_owned(), "`respiration` is no whole number"),
        ("{".to_owned(), "not JSON"),
        ("{\"respiration\":1e999}".to_owned(), "`respiration` is no whole number"),
        changed(json!({ "spo2": 101 }), "`spo2` is 101, which is not from 0 to 100"),
        changed(json!({ "spo2": "98" }), "`spo2` is no whole number: \"98\""),
        changed(json!({ "spo2": 91.5 }), "`spo2` is no whole number: 91.5"),
        changed(json!({ "respiration": -1 }), "`respiration` is -1"),
        changed(json!({ "scale": 3 }), "`scale` is 3"),
        changed(json!({ "scale": 1.5 }), "`scale` is no whole number"),
        changed(json!({ "oxygen": "no" }), "`oxygen` is neither true nor false"),
        changed(json!({ "systolic": 351 }), "`systolic` is 351"),
        changed(json!({ "pulse": null }), "`pulse` is no whole number: null"),
        changed(json!({ "consciousness": "a" }), "`consciousness` is none of A, C, V, P, U"),
        changed(json!({ "temperature": 370 }), "`temperature` is 370"),
        changed(json!({ "temperature": "37" }), "`temperature` is no number"),
    ];
    // What lacks anything is not filled up.
    for name in ["respiration", "spo2", "scale", "oxygen", "systolic", "pulse", "consciousness", "temperature"] {
        let mut lacking = reading(&json!({ "respiration": 30 }));
        lacking.as_object_mut().unwrap().remove(name);
        refused.push((lacking.to_string(), name));
    }
    refused
}

#[tokio::test]
async fn what_is_no_reading_is_a_dead_letter_and_touches_no_alarm() {
    let site = ward().await;
    let (topic, refused) = ("ward/7/vitals", refused());
    site.publish(topic, &marked(&json!({ "respiration": 25 }), 60..=60)).await;
    let lines: String = refused.iter().map(|(line, _)| format!("{line}\n")).collect();
    site.publish_lines(topic, &lines).await;
    site.publish(&format!("ward/{}/vitals", "x".repeat(65)), &[reading(&json!({ "respiration": 25 }))]).await;
    // Two calm ones, which would clear the alarm if any of the others had counted as one.
    site.publish(topic, &marked(&json!({}), 61..=62)).await;
    let bed = site.bed("7", "pulse", &json!(62)).await;
    assert_eq!(bed["alarm"], "low-medium");
    let dead = eventually("the dead letters", || async {
        let dead = site.events("mqtt.dead").await;
        (dead.len() == refused.len() + 1).then_some(dead)
    });
    let (dead, log) = (dead.await, site.admin().get("/v1/logs").await.text());
    for (n, (line, why)) in refused.iter().enumerate() {
        let letter = dead[n].to_string();
        assert!(
            letter.contains("400 Bad Request")
                && letter.contains(&json!(why).to_string()[1..json!(why).to_string().len() - 1]),
            "{line}: {letter}"
        );
    }
    for why in ["refused: not JSON", "refused: `spo2` is 101, which is not from 0 to 100", "1 to 64 characters"] {
        assert!(log.contains(why), "{why:?} is not in {log}");
    }
    assert_eq!(site.alarms().await, told("7", &[("raised", "low-medium")]));
    assert_eq!(site.board().await.len(), 1);
    site.node.drain().await.expect(0);
}

#[tokio::test]
async fn the_board_shows_the_ward_and_is_no_door() {
    let site = ward().await;
    site.publish("ward/<script>alert('ä')&/vitals", &[reading(&json!({ "consciousness": "V" }))]).await;
    site.publish("ward/4/vitals", &[reading(&json!({}))]).await;
    eventually("both beds", || async { (site.board().await.len() == 2).then_some(()) }).await;
    let page = site.node.http.get("/").await.expect(200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    let text = page.text();
    assert!(text.contains("<td>&#60;script&#62;alert(&#39;ä&#39;)&#38;<td class=\"score\">3<td>low-medium"), "{text}");
    assert!(text.contains("<td>4<td class=\"score\">0<td>none") && !text.contains("<script"), "{text}");
    let beds = site.board().await;
    assert_eq!(beds[1]["bed"], "<script>alert('ä')&");
    site.node.drain().await.expect(0);
}
