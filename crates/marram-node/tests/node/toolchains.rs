//! Components that other people's toolchains make, and one that was written by hand, run unchanged.

use marram_testkit::{check, expect, get, guest, manifest};

#[tokio::test(flavor = "multi_thread")]
async fn a_component_as_text() {
    let manifest = manifest("text", &[("hello", "hello.wat", "/...")]);
    let hello = (get("/"), expect(200, "Hello from WebAssembly text\n"));
    check(&manifest, &[("hello", guest("hello.wat"))], &[hello.clone(), hello]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_of_componentize_py() {
    let manifest = manifest("python", &[("hello", "python-plain.wasm", "/...")]);
    let hello = |path| (get(path), expect(200, &format!("Hello from componentize-py at {path}\n")));
    check(&manifest, &[("hello", guest("python-plain"))], &[hello("/"), hello("/a?b=c")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_of_componentize_js() {
    let manifest = manifest("js", &[("hello", "js-plain.wasm", "/...")]);
    let hello = |path| (get(path), expect(200, &format!("Hello from componentize-js at {path}\n")));
    check(&manifest, &[("hello", guest("js-plain"))], &[hello("/"), hello("/a/b")]).await;
}
