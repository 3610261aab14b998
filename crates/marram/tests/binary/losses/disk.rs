//! A disk that fails under a whole node, and works again: whoever was told that something is durable has it, everybody else was
//! told that it failed, nothing is stored twice, and the node goes on by itself.
//!
//! `strace` makes the calls fail for real; without it these tests say so and show nothing.

use super::{LISTENERS, Site, deploy, start, start_under};
use crate::support::{Node, client, home};

/// Acknowledged events after the last failure that show that the node is itself again.
const AFTERWARDS: usize = 100;

/// Puts everybody to work on a node whose calls fail as `inject` says, until each has gone on past its failures; then kills it
/// and looks at what is there.
async fn check(inject: &str, statuses: &[u16]) {
    if std::process::Command::new("strace").arg("-V").output().is_err() {
        println!("there is no strace here: nothing is shown");
        return;
    }
    let mut site = Site::new();
    let home = home(LISTENERS).await;
    let (node, doors) = start_under(home, "strace", &["-D", "-f", "-qq", "-o", "/dev/null", "-e", inject]).await;
    deploy(&node).await;
    site.listener.lock().await.subscribe(&doors.mqtt).await;
    let mut tasks = site.work(&node, &doors);
    let failed = site.fail_and_go_on(AFTERWARDS).await;
    assert!(failed.iter().all(|status| statuses.contains(status)), "{failed:?}");
    // Reading goes on in any case.
    assert_eq!(client(&node.admin_url).get("/v1/streams").await.status, 200);
    let Node { running, home, .. } = node;
    running.kill().await;
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    let (node, doors) = start(home).await;
    site.balance(&node, &doors).await;
    for device in &site.devices {
        assert!(device.lock().await.acknowledged.len() > AFTERWARDS / 4, "this has shown nothing");
    }
    node.drain().await.expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_and_recovers() {
    check("inject=pwrite64:error=ENOSPC:when=4000..6000", &[507, 503]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_fail_are_refused_and_do_not_come_back() {
    check("inject=pwrite64:error=EIO:when=4000..4400", &[500, 503, 507]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn syncs_that_fail_are_refused_and_do_not_come_back() {
    check("inject=fsync,fdatasync:error=EIO:when=300..340", &[500, 503]).await;
}
