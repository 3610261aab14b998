//! Where the address space is small there is no room for a pool of instances: functions run all the same.
//!
//! The test starts itself again as a child process, which limits its own address space before it makes a runtime.

use std::process::Command;

use http_body_util::BodyExt as _;
use marram_core::Kind;
use marram_runtime::Allocation;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::host::{Host, get};

const SPACE_BYTES: &str = "MARRAM_TEST_SPACE_BYTES";

/// Not a test of its own: what the child does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(bytes) = std::env::var(SPACE_BYTES) else { return };
    let limit = Some(bytes.parse().unwrap());
    setrlimit(Resource::As, Rlimit { current: limit, maximum: limit }).unwrap();
    let mut allocation = None;
    for component in ["hello-p2.wasm", "hello-p3.wasm", "composed.wasm"] {
        let function = format!("[[function]]\nname = \"f\"\ncomponent = \"{component}\"\n");
        let host = Host::deploy(&function).await;
        for _ in 0..20 {
            let (status, body) = host.get("/").await.unwrap_or_else(|failure| panic!("{component}: {failure:?}"));
            assert!(status == 200 && body.contains("Hello"), "{component}: {status} {body}");
        }
        allocation = Some(host.runtime.allocation());
    }
    limits_hold().await;
    println!("served with {:?}", allocation.unwrap());
}

/// Without guard pages, each access is checked by the code itself.
async fn limits_hold() {
    let limits = "limits = { memory = \"16MiB\", cpu = \"200ms\", deadline = \"10s\" }";
    let host = Host::deploy(&format!("[[function]]\nname = \"bad\"\ncomponent = \"bad.wasm\"\n{limits}\n")).await;
    for (path, kind) in [
        ("/alloc", Kind::ResourceLimit),
        ("/recurse", Kind::Trap),
        ("/trap", Kind::Trap),
        ("/loop", Kind::CpuLimit),
        ("/handles", Kind::ResourceLimit),
    ] {
        let failure = match host.send(get(path)).await {
            Err(failure) => failure,
            Ok(response) => response.into_body().collect().await.expect_err("it is answered"),
        };
        assert_eq!(failure.kind(), kind, "{path}: {failure:?}");
        assert_eq!(host.get("/ok").await.unwrap().0, 200, "{path}");
    }
}

/// Runs the child with this much address space, and gives what it came to.
fn served_with(bytes: u64) -> Option<String> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["small_space::child", "--exact", "--nocapture", "--test-threads=1"])
        .env(SPACE_BYTES, bytes.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said.lines().find_map(|line| Some(line.split_once("served with ")?.1.to_owned()))
}

/// A slot takes 4 GiB and its guards, and a test's runtime asks for 64 of them.
#[test]
fn a_pool_shrinks_and_then_there_is_none() {
    const GIB: u64 = 1 << 30;
    let pooled = format!("{:?}", Allocation::Pooled);
    let on_demand = format!("{:?}", Allocation::OnDemand);
    assert_eq!(served_with(1 << 47), Some(pooled.clone()));
    assert_eq!(served_with(160 * GIB), Some(pooled), "a smaller pool");
    assert_eq!(served_with(2 * GIB), Some(on_demand));
}
