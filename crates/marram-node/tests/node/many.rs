//! Many functions on a node: to boot costs no look at their code, and any one answers.

use std::collections::BTreeSet;
use std::path::Path;

use marram_testkit::{TestNode, get, guest};
use serde_json::Value;

const APPS: usize = 30;
const FUNCTIONS: usize = 10;

/// What is moved out of the way, so that whoever reads it finds nothing.
const CODE: [&str; 2] = ["blobs/sha256", "cache"];

/// What a function is made of, and which kind that is.
fn component(function: usize) -> (&'static str, &'static str) {
    match function {
        0 => ("index.js", "javascript"),
        1 => ("hello-p3.wasm", "component-0.3"),
        _ => ("config-rc.wasm", "component-0.2"),
    }
}

/// Each function answers with a number of its own, but for the one of 0.3, which says hello.
fn manifest(app: usize) -> String {
    let functions = (0..FUNCTIONS).map(|function| {
        let (component, _) = component(function);
        format!(
            "[[function]]\nname = \"f{function}\"\ncomponent = \"{component}\"\n\
             on = [{{ http = \"f{function}.app{app}.example/...\" }}]\nconfig = {{ number = \"{}\" }}\n",
            app * FUNCTIONS + function
        )
    });
    format!("manifest_version = 1\n[app]\nname = \"app{app}\"\n{}", functions.collect::<String>())
}

fn files(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

async fn functions(node: &TestNode) -> Vec<Value> {
    let apps = node.admin().get("/v1/apps").await.expect(200).json();
    let mut functions = Vec::new();
    for app in apps["apps"].as_array().unwrap() {
        assert_eq!(app["state"], "ready", "{app}");
        let path = format!("/v1/apps/{}", app["app"].as_str().unwrap());
        let app = node.admin().get(&path).await.expect(200).json();
        functions.extend(app["functions"].as_array().unwrap().clone());
    }
    functions
}

#[tokio::test(flavor = "multi_thread")]
async fn boot_reads_no_code_and_any_function_answers() {
    let node = TestNode::start().await;
    let aside = tempfile::tempdir().unwrap();
    let script = aside.path().join("index.js");
    std::fs::write(&script, "export default { fetch(_, env) { return new Response(env.number); } }").unwrap();
    for app in 0..APPS {
        let names: Vec<_> = (0..FUNCTIONS).map(|function| (format!("f{function}"), component(function).0)).collect();
        let file = |component: &str| match component.strip_suffix(".wasm") {
            Some(name) => guest(name),
            None => script.clone(),
        };
        let components: Vec<_> = names.iter().map(|(name, component)| (name.as_str(), file(component))).collect();
        node.deploy(&manifest(app), &components).await.unwrap();
    }
    let compiled = files(&node.state_dir().join("cache"));
    assert!(!compiled.is_empty());

    let node = node
        .restart_with(|state| {
            for (n, folder) in CODE.iter().enumerate() {
                std::fs::rename(state.join(folder), aside.path().join(n.to_string())).unwrap();
            }
        })
        .await;
    let found = functions(&node).await;
    assert_eq!(found.len(), APPS * FUNCTIONS);
    for function in &found {
        let number = function["name"].as_str().unwrap()[1..].parse().unwrap();
        let (_, kind) = component(number);
        assert_eq!((&function["kind"], &function["status"]["mapped"]), (&kind.into(), &false.into()), "{function}");
    }
    assert!(files(&node.state_dir().join("cache")).is_empty(), "something was compiled");

    for (n, folder) in CODE.iter().enumerate() {
        let folder = node.state_dir().join(folder);
        std::fs::remove_dir(&folder).unwrap();
        std::fs::rename(aside.path().join(n.to_string()), folder).unwrap();
    }
    // Not in their order, and each once: 7 and 300 have no common divisor.
    for n in (0..APPS * FUNCTIONS).map(|n| n * 7 % (APPS * FUNCTIONS)) {
        let (app, function) = (n / FUNCTIONS, n % FUNCTIONS);
        let request = get("/config/number").header("host", &format!("f{function}.app{app}.example"));
        let answer = node.http().send(request).await.expect(200).text();
        let expected = if function == 1 { "Hello from Marram".to_owned() } else { n.to_string() };
        assert_eq!(answer.trim(), expected, "f{function} of app{app}");
    }
    assert_eq!(files(&node.state_dir().join("cache")), compiled, "code comes from the cache");
    node.stop().await;
}
