//! The scheduled report: visits are counted over HTTP, and every visit is in one report.

use http::Method;
use marram_testkit::{Ask, eventually};
use serde_json::Value;
use tempfile::TempDir;

use super::{events, example};
use crate::support::{Node, client, folder};

/// The example, with a report every second.
fn every_second() -> TempDir {
    let app = folder();
    for file in ["visits.py", "daily.py"] {
        std::fs::copy(example("report").join(file), app.path().join(file)).unwrap();
    }
    let manifest = std::fs::read_to_string(example("report").join("marram.toml")).unwrap();
    let (daily, often) = ("schedule = \"0 0 6 * * *\"", "schedule = \"* * * * * *\"");
    assert!(manifest.contains(daily), "{manifest}");
    std::fs::write(app.path().join("marram.toml"), manifest.replace(daily, often)).unwrap();
    app
}

async fn visit(node: &Node, page: &str) -> Value {
    node.http.send(Ask::new(Method::POST, &format!("/visits/{page}"))).await.expect(200).json()
}

/// The visits of each page in all reports, once those are this many.
async fn reported(node: &Node, visits: u64) -> Vec<Value> {
    let admin = client(&node.admin_url);
    eventually(&format!("{visits} visits are reported"), || async {
        let reports = events(&admin, "reports").await;
        let sum: u64 = reports.iter().map(|report| report["data"]["visits"].as_u64().unwrap()).sum();
        (sum == visits).then_some(reports)
    })
    .await
}

#[tokio::test]
async fn every_visit_is_in_one_report() {
    let node = Node::start().await;
    node.deploy(every_second().path()).await;
    assert_eq!(visit(&node, "home").await["visits"], 1);
    reported(&node, 1).await;
    visit(&node, "home").await;
    assert_eq!(visit(&node, "price-list").await["visits"], 1);
    reported(&node, 3).await;

    // It goes on after a power cut, without counting anything twice.
    let Node { running, home, .. } = node;
    running.kill().await;
    let node = Node::start_in(home).await;
    assert_eq!(visit(&node, "home").await["visits"], 3);
    let mut reports = reported(&node, 4).await;
    reports.sort_by_key(|report| report["data"]["planned"].to_string());
    let pages =
        |page: &str| -> i64 { reports.iter().filter_map(|report| report["data"]["pages"][page].as_i64()).sum() };
    assert_eq!((pages("home"), pages("price-list")), (3, 1));

    let admin = client(&node.admin_url);
    for pair in reports.windows(2) {
        assert_eq!(pair[1]["data"]["since"], pair[0]["data"]["planned"], "a report follows on the one before");
    }
    for report in &reports {
        let planned = report["data"]["planned"].as_str().unwrap();
        assert_eq!((&report["id"], &report["type"]), (&report["data"]["planned"], &"report.written".into()));
        assert_eq!(report["subject"], planned[..10]);
        let offset = &planned[19..];
        assert!(offset == "+01:00" || offset == "+02:00", "{planned} is not on Berlin's clock");
        let kept = admin.get(&format!("/v1/kv/reports/keys/{}", planned.replace('+', "%2B"))).await.expect(200).json();
        assert_eq!(kept, report["data"]);
    }
    node.drain().await.expect(0);
}

#[tokio::test]
async fn as_it_is_it_waits_for_the_morning() {
    let node = Node::start().await;
    node.deploy(&example("report")).await;
    assert_eq!(node.http.get("/visits/home").await.expect(200).json()["visits"], 0);
    visit(&node, "home").await;
    assert_eq!(node.http.get("/visits/home").await.expect(200).json()["visits"], 1);
    let refused = node.http.send(Ask::new(Method::POST, "/visits/%3Cb%3E")).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    let apps = node.marram(&["apps", "report", "--json"]).json().await.to_string();
    assert!(apps.contains("0 0 6 * * *"), "{apps}");
    node.drain().await.expect(0);
}
