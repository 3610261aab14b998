//! Components written as text, for what toolchains do not make: tables, and trouble before the first request.

use marram_core::record::Outcome;
use marram_core::{Failure, Kind};

use crate::host::{Host, guest};

/// A component of 0.2 around one core module, whose `fields` are given, and its `handle`, which has a request and where
/// to answer it.
fn component(fields: &str, handle: &str) -> String {
    format!(
        r#"(component
            (import "wasi:http/types@0.2.0" (instance $types
                (export "incoming-request" (type (sub resource)))
                (export "response-outparam" (type (sub resource)))))
            (alias export $types "incoming-request" (type $request))
            (alias export $types "response-outparam" (type $out))
            (core module $module {fields} (func (export "handle") (param i32 i32) {handle}))
            (core instance $core (instantiate $module))
            (func $handle (param "request" (own $request)) (param "response-out" (own $out))
                (canon lift (core func $core "handle")))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
    )
}

async fn deploy(text: &str, more: &str) -> Result<Host, Failure> {
    let function = format!("[[function]]\nname = \"f\"\ncomponent = \"f.wat\"\n{more}\n");
    Host::try_sources(&function, &[("f.wat", text)]).await
}

/// How a request to it fails.
async fn failure(text: &str, more: &str) -> (Host, Failure) {
    let host = deploy(text, more).await.unwrap_or_else(|error| panic!("{error:?}"));
    let failure = host.get("/").await.expect_err("it has no answer");
    let record = host.observed.record().await;
    assert_eq!(record.outcome, Outcome::Failed(failure.kind()), "{failure:?}");
    (host, failure)
}

#[tokio::test]
async fn tables_without_end_are_a_limit() {
    let table = "(table $t 1 funcref)";
    let grow = "(loop $more (br_if $more (i32.ne (i32.const -1) (table.grow $t (ref.null func) (i32.const 500))))) unreachable";
    let (_host, failed) = failure(&component(table, grow), "").await;
    assert_eq!(failed.kind(), Kind::ResourceLimit, "{failed:?}");
    assert!(failed.message().contains("tables of more than"), "{failed}");
    // Several count together.
    let tables = |elements: u32| format!("(table {elements} funcref)").repeat(8);
    let (_host, failed) = failure(&component(&tables(20_000), ""), "").await;
    assert_eq!(failed.kind(), Kind::ResourceLimit, "{failed:?}");
    let (_host, failed) = failure(&component(&tables(2_000), ""), "").await;
    assert_eq!(failed.kind(), Kind::NoResponse, "{failed:?}");
}

#[tokio::test]
async fn memory_that_is_asked_for_at_once_counts_too() {
    let limits = "limits = { memory = \"1MiB\" }";
    let (_host, failed) = failure(&component("(memory 17)", ""), limits).await;
    assert_eq!(failed.kind(), Kind::ResourceLimit, "{failed:?}");
    assert!(failed.message().contains("1MiB of memory"), "{failed}");
    let (_host, failed) = failure(&component("(memory 16)", ""), limits).await;
    assert_eq!(failed.kind(), Kind::NoResponse, "16 pages are a MiB: {failed:?}");
}

#[tokio::test]
async fn trouble_while_an_instance_starts_is_the_requests() {
    let start = |body: &str| component(&format!("(func $start {body}) (start $start)"), "");
    let (_host, failed) = failure(&start("unreachable"), "").await;
    assert_eq!(failed.kind(), Kind::Trap, "{failed:?}");
    let (host, failed) = failure(&start("(loop $l (br $l))"), "limits = { cpu = \"100ms\", deadline = \"10s\" }").await;
    assert_eq!(failed.kind(), Kind::CpuLimit, "{failed:?}");
    assert_eq!(host.function("f").status().running, 0);
    // Kept warm, it would be made before any request: then the deployment is refused.
    let warm = "instances = { reuse = 2, warm = 1 }\nlimits = { cpu = \"100ms\" }";
    for (body, kind) in [("unreachable", Kind::Trap), ("(loop $l (br $l))", Kind::CpuLimit)] {
        let refused = deploy(&start(body), warm).await.err().unwrap();
        assert_eq!(refused.kind(), kind, "{refused:?}");
        assert!(refused.message().contains("function \"f\""), "{refused}");
    }
}

/// Interfaces of a patch version that did not exist when this was written are those of 0.2 all the same.
#[tokio::test]
async fn any_patch_of_0_2_is_taken() {
    let known = std::fs::read(guest("hello-p2.wasm")).unwrap();
    for patch in [*b"@0.2.10", *b"@0.2.99"] {
        let mut bytes = known.clone();
        let places: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"@0.2.12")).collect();
        assert!(!places.is_empty(), "the guest is of another version");
        places.iter().for_each(|at| bytes[*at..*at + 7].copy_from_slice(&patch));
        let host = Host::try_bytes("f.wasm", &bytes).await.unwrap();
        assert_eq!(host.get("/").await.unwrap().0, 200);
    }
}
