//! What is not a function is refused at deploy, with an error that names the thing and the next step.

use crate::host::{Host, guest};

async fn check(name: &str, bytes: &[u8], parts: &[&str]) {
    let failure = Host::try_bytes(name, bytes).await.err().unwrap_or_else(|| panic!("{name} was taken"));
    for part in parts {
        assert!(failure.message().contains(part), "{part:?} is not in {:?}", failure.message());
    }
}

/// A component that imports one instance and exports nothing.
fn importing(interface: &str) -> Vec<u8> {
    format!("(component (import \"{interface}\" (instance)))").into_bytes()
}

/// A whole function that imports this, too: what is exported is looked at before the versions are.
fn also_importing(interface: &str, exports: &str) -> Vec<u8> {
    let hello = std::fs::read_to_string(guest("hello.wat")).unwrap();
    let with = format!("\n(component (import \"{interface}\" (instance {exports}))\n");
    assert!(hello.contains("\n(component\n"), "{hello}");
    hello.replacen("\n(component\n", &with, 1).into_bytes()
}

#[tokio::test]
async fn not_a_component() {
    check("f.wasm", b"", &["function \"f\"", "is empty"]).await;
    check("f.wasm", b"\0asm\x01\0\0\0", &["core WebAssembly module", "wasm32-wasip2"]).await;
    check("f.wasm", b"#!/bin/sh\necho hi\n", &["is text and not WebAssembly", "#!/bin/sh"]).await;
    check("f.wasm", b"\xff\xfe\0\x01", &["does not begin with"]).await;
    check("f.wat", b"(component (broken", &["cannot be compiled"]).await;
    let mut truncated = std::fs::read(guest("hello-p2.wasm")).unwrap();
    truncated.truncate(truncated.len() / 2);
    check("f.wasm", &truncated, &["cannot be compiled", "build it again"]).await;
}

#[tokio::test]
async fn exports_no_handler() {
    check("f.wat", b"(component)", &["exports nothing", "wasi:http/incoming-handler@0.2"]).await;
    for (interface, step) in [
        ("wasi:cli/run@0.2.0", "it is a command: make it an HTTP handler"),
        ("wasi:messaging/incoming-handler@0.2.0-draft", "messages come to the HTTP handler, as events"),
    ] {
        let exporting = format!("(component (instance $it) (export \"{interface}\" (instance $it)))");
        check("f.wat", exporting.as_bytes(), &[interface, step]).await;
    }
}

#[tokio::test]
async fn imports_that_are_not_there() {
    check(
        "f.wat",
        &importing("wasi:keyvalue/store@0.2.0-draft"),
        &["`wasi:keyvalue/store@0.2.0-draft`", "not granted", "allow = { kv = [\"<bucket>\"] }"],
    )
    .await;
    check("f.wat", &importing("acme:billing/invoices@1.0.0"), &["`acme:billing/invoices@1.0.0`", "wac plug"]).await;
}

#[tokio::test]
async fn another_version_than_there_is() {
    for (interface, step) in [
        ("wasi:config/store@0.2.0", "there is `wasi:config/store@0.2.0-rc.1`"),
        ("wasi:logging/logging@0.1.0", "there is `wasi:logging/logging@0.1.0-draft`"),
        ("wasi:random/random@1.0.0", "build it with a toolchain for WASI 0.2 or 0.3.0"),
    ] {
        check("f.wat", &also_importing(interface, "(export \"f\" (func))"), &[&format!("`{interface}`"), step]).await;
    }
}

#[tokio::test]
async fn configuration_by_its_older_names_is_linked() {
    for (interface, error) in
        [("wasi:config/runtime@0.2.0-draft", "config-error"), ("wasi:config/store@0.2.0-draft", "error")]
    {
        let exports = format!(
            "(type $cases (variant (case \"upstream\" string) (case \"io\" string)))
             (export \"{error}\" (type $error (eq $cases)))
             (type $value (option string)) (type $one (result $value (error $error)))
             (type $pair (tuple string string)) (type $pairs (list $pair)) (type $all (result $pairs (error $error)))
             (export \"get\" (func (param \"key\" string) (result $one)))
             (export \"get-all\" (func (result $all)))"
        );
        let deployed = Host::try_bytes("f.wat", &also_importing(interface, &exports)).await;
        assert!(deployed.is_ok(), "{interface}: {:?}", deployed.err());
    }
}

#[tokio::test]
async fn middleware_has_to_be_composed_first() {
    let middleware = std::fs::read(guest("middleware.wasm")).unwrap();
    check("f.wasm", &middleware, &["`wasi:http/incoming-handler@0.2.12`: it is middleware", "wac plug"]).await;
    check("f.wat", &importing("wasi:http/handler@0.3.0"), &["`wasi:http/handler@0.3.0`: it is middleware"]).await;
}

#[tokio::test]
async fn a_missing_secret_says_how_to_set_it() {
    let failure =
        Host::try_deploy("[[function]]\nname = \"f\"\ncomponent = \"hello-p2.wasm\"\nsecrets = [\"other\"]\n", |_| {})
            .await;
    let failure = failure.err().expect("it is not set");
    assert!(failure.message().contains("`marram secret set test other`"), "{failure}");
}

#[tokio::test]
async fn several_at_once_in_an_instance_that_serves_one() {
    let failure = Host::try_deploy(
        "[[function]]\nname = \"f\"\ncomponent = \"hello-p2.wasm\"\ninstances = { concurrent = 4 }\n",
        |_| {},
    )
    .await;
    let failure = failure.err().expect("0.2 serves one at a time");
    assert!(failure.message().contains("`concurrent = 1`"), "{failure}");
}

#[tokio::test]
async fn a_stored_file_that_was_altered_is_refused() {
    for name in ["f.py", "f.wat"] {
        let failure = Host::try_altered(name, b"def app(): pass", b"import os").await;
        let failure = failure.err().unwrap_or_else(|| panic!("{name} was taken"));
        assert!(failure.message().contains("function \"f\""), "{failure}");
    }
    let failure = Host::try_altered("f.py", b"def app(): pass", b"import os").await.err().unwrap();
    assert!(failure.message().contains("it was altered"), "{failure}");
}
