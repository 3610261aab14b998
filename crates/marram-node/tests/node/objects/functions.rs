//! Functions that read and write objects by `wasi:blobstore`.

use marram_testkit::{TestNode, eventually, guest};
use serde_json::json;

fn manifest(grants: &str) -> String {
    format!(
        "manifest_version = 1\n[app]\nname = \"site\"\n[[function]]\nname = \"f\"\ncomponent = \"objects.wasm\"\n\
         on = [{{ http = \"/...\" }}]\nlimits = {{ cpu = \"5s\", deadline = \"20s\" }}\n{grants}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn by_wasi_blobstore() {
    let node = TestNode::start().await;
    node.deploy(&manifest("allow = { blob = [\"pictures\", \"other\"] }"), &[("f", guest("objects.wasm"))])
        .await
        .unwrap();
    let calls = [
        ("/pictures/create", "pictures"),
        ("/pictures/is-there", "true"),
        ("/pictures/has/a", "false"),
        ("/pictures/get/a", "has no object \"a\""),
        ("/pictures/put/a/one", "put"),
        ("/pictures/get/a", "3: one"),
        ("/pictures/put-late/a/another", "put"),
        ("/pictures/get/a", "7: another"),
        ("/pictures/part/a/2/4", "3: oth"),
        ("/pictures/part/a/4/400", "3: her"),
        ("/pictures/part/a/4/2", "ends before it begins"),
        ("/pictures/info/a", "pictures a 7"),
        ("/pictures/abandon/half", "abandoned"),
        ("/pictures/has/half", "false"),
        ("/pictures/unnamed", "call `write-data` before `finish`"),
        ("/pictures/big/big/3000000", "put"),
        ("/pictures/sum/big", "3000000 true"),
        ("/other/create", "other"),
        ("/pictures/copy/a/b", "copied"),
        ("/pictures/move/b/c", "moved"),
        ("/pictures/copy/none/b", "has no object \"none\""),
        ("/pictures/list/0", "0 skipped a big c"),
        ("/pictures/list/2", "2 skipped c"),
        ("/pictures/list/9", "3 skipped"),
        ("/pictures/delete/a/none", "deleted"),
        ("/pictures/list/0", "0 skipped big c"),
        ("/pictures/clear", "cleared"),
        ("/pictures/list/0", "0 skipped"),
        ("/pictures/drop", "dropped"),
        ("/pictures/is-there", "false"),
        ("/pictures/put/a/b", "there is no bucket"),
        ("/secret/put/a/b", "add \"secret\" to its allow.blob"),
    ];
    for (path, expected) in calls {
        let told = node.http().get(path).await.text();
        assert!(told.contains(expected), "{path}: {expected:?} is not in {told:?}");
    }
    let refused = node.deploy(&manifest(""), &[("f", guest("objects.wasm"))]).await.unwrap_err();
    assert!(refused.message().contains("allow = { blob = [\"<bucket>\"] }"), "{refused}");
    node.stop().await;
}

/// A move is one change: there is none of an object that stays where it is.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_moved_to_its_own_name_is_as_it_was() {
    let node = TestNode::start().await;
    node.deploy(&manifest("allow = { blob = [\"pictures\"] }"), &[("f", guest("objects.wasm"))]).await.unwrap();
    let call = async |path: &str, expected: &str| assert_eq!(node.http().get(path).await.text(), expected, "{path}");
    call("/pictures/create", "pictures").await;
    call("/pictures/put/a/one", "put").await;
    let written_ms = async || {
        let list = node.admin().get("/v1/objects/pictures").await.expect(200).json();
        list["objects"][0]["modified_unix_ms"].as_u64().unwrap()
    };
    let before = written_ms().await;
    eventually("the clock goes on", || async {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        (now.as_millis() > u128::from(before)).then_some(())
    })
    .await;
    call("/pictures/move/a/a", "moved").await;
    assert_eq!(written_ms().await, before);
    call("/pictures/get/a", "3: one").await;
    node.stop().await;
}

const SCRIPT: &str = r#"
export default { async fetch(request, env) {
    const { pictures } = env.blob;
    const show = (value) => Response.json(value ?? null);
    try {
        switch (new URL(request.url).pathname) {
            case "/none": return show([await pictures.get("none"), await pictures.head("none")]);
            case "/put": {
                const { name, size, contentType, metadata } = await pictures.put("a/b", "one", { metadata: { By: "me" } });
                return show([name, size, contentType, metadata]);
            }
            case "/get": {
                const found = await pictures.get("a/b");
                return show([await found.text(), found.size, found.modified <= new Date(Date.now() + 1), String(found)]);
            }
            case "/part": return show(await (await pictures.get("a/b", { range: { offset: 1, length: 1 } })).text());
            case "/json": await pictures.put("j", { rms: 1.4 }); return show(await (await pictures.get("j")).json());
            case "/bytes": await pictures.put("n", new Uint8Array([0, 10, 255])); return show([...await (await pictures.get("n")).bytes()]);
            case "/big": {
                await pictures.put("big", new Uint8Array(17 << 20));
                return show((await (await pictures.get("big")).bytes()).length);
            }
            case "/list": return show((({ objects, prefixes, list_complete, cursor }) => [objects.map((o) => o.name), prefixes, list_complete, cursor])(await pictures.list({ delimiter: "/", limit: 2 })));
            case "/only-new": return show(await pictures.put("n", "x", { ifEtag: null }));
            case "/only-this": return show((await pictures.put("j", "x", { ifEtag: (await pictures.head("j")).etag })).size);
            case "/delete": await pictures.delete(["a/b", "j"]); return show((await pictures.list()).objects.map((o) => o.name));
            case "/file": {
                const form = new FormData();
                form.append("f", new File(["png"], "a.png", { type: "image/png" }));
                const types = [(await pictures.put("f", form.get("f"))).contentType, (await pictures.put("f", form.get("f"), { contentType: "a/b" })).contentType];
                return show([types, await (await pictures.get("f")).text()]);
            }
            case "/response": return show(await pictures.put("r", new Response("x")));
            case "/copy": return show(await pictures.put("r", await pictures.get("n")));
            case "/said": await pictures.put("s", await pictures.head("n")); return show((await (await pictures.get("s")).json()).name);
            case "/taken": {
                const [found] = await Promise.all(["f"].map(pictures.get, pictures));
                const copy = await pictures.put("copy", found.body, found), again = await pictures.put("again", "x", { ...copy });
                const page = await pictures.list({ limit: 1, include: ["customMetadata"] }), next = await pictures.list(page);
                const part = await pictures.get("n", { range: undefined, type: "bytes", onlyIf: undefined });
                return show([copy.name, copy.contentType, again.contentType, next.objects[0].name, (await part.bytes()).length]);
            }
            case "/etag": return show(await pictures.put("r", "x", { etag: "1" }));
            case "/misspelt": return show(await pictures.put("r", "x", { contenttype: "a/b" }));
            case "/suffix": return show(await pictures.get("n", { range: { suffix: 1 } }));
            case "/limit": return show(await pictures.list({ limit: -1 }));
            case "/offset": return show(await pictures.get("n", { range: { offset: 0.5 } }));
            case "/unread": return show(await (await pictures.head("n")).text());
        }
    } catch (error) {
        return show(`${error.kind}: ${error.message}`);
    }
} }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn by_javascript() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("index.js");
    std::fs::write(&file, SCRIPT).unwrap();
    let node = TestNode::start().await;
    let manifest = manifest("allow = { blob = [\"pictures\"] }").replace("objects.wasm", "index.js");
    node.deploy(&manifest.replace("limits = {", "limits = { memory = \"128MiB\", "), &[("f", file)]).await.unwrap();
    let cases = [
        ("/none", json!([null, null])),
        ("/put", json!(["a/b", 3, "text/plain", { "by": "me" }])),
        ("/get", json!(["one", 3, true, "[object StoredObject]"])),
        ("/part", json!("n")),
        ("/json", json!({ "rms": 1.4 })),
        ("/bytes", json!([0, 10, 255])),
        ("/list", json!([["j"], ["a/"], false, "j"])),
        ("/only-this", json!(1)),
        ("/big", json!(17 << 20)),
        ("/delete", json!(["big", "n"])),
        ("/file", json!([["image/png", "a/b"], "png"])),
        ("/said", json!("n")),
        ("/taken", json!(["copy", "a/b", "a/b", "big", 3])),
    ];
    for (path, expected) in cases {
        assert_eq!(node.http().get(path).await.expect(200).json(), expected, "{path}");
    }
    for (path, part) in [
        ("/only-new", "conflict: "),
        ("/unread", "use get"),
        ("/response", "a Response is not a value: give it.body, which streams"),
        ("/copy", "a StoredObject is not a value: give it.body, which streams, or { ...it } for what is said of it"),
        ("/etag", "put of env.blob has no option etag; it has contentType, metadata, ifEtag"),
        ("/misspelt", "put of env.blob has no option contenttype; it has contentType, metadata, ifEtag"),
        ("/limit", "invalid: `limit` is -1: it is a whole number from 1; a page has at most 1000 entries"),
        ("/offset", "invalid: `offset` is 0.5: it is a whole number of bytes"),
        ("/suffix", "the range of get has no option suffix; it has offset, length"),
    ] {
        let told = node.http().get(path).await.expect(200).text();
        assert!(told.contains(part), "{path}: {told}");
    }
    node.stop().await;
}

const PYTHON: &str = r#"
from marram import Response, StateError

def fetch(request, env):
    pictures = env.blob.pictures
    try:
        match request.path:
            case "/put":
                put = pictures.put("a", "one", metadata={"by": "me"}, if_etag=None)
                return Response.json([put.name, put.size, put.content_type, put.metadata])
            case "/get":
                found = pictures.get("a")
                return Response.json([found.text(), found.size, pictures.get("a", offset=1, length=1).text(), pictures.get("b")])
            case "/again": return Response.json(pictures.put("a", "two", if_etag=None).size)
            case "/json": pictures.put("j", {"rms": 1.4}); return Response.json(pictures.get("j").json())
            case "/list": return Response.json([one.name for one in pictures.list()])
            case "/delete": pictures.delete("a", "j"); return Response.json([one.name for one in pictures.list()])
    except StateError as error:
        return Response.json([error.kind, str(error)])
"#;

#[tokio::test(flavor = "multi_thread")]
async fn by_python() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.py");
    std::fs::write(&file, PYTHON).unwrap();
    let node = TestNode::start().await;
    let manifest = manifest("allow = { blob = [\"pictures\"] }").replace("objects.wasm", "app.py");
    node.deploy(&manifest, &[("f", file)]).await.unwrap();
    let cases = [
        ("/put", json!(["a", 3, "text/plain", { "by": "me" }])),
        ("/get", json!(["one", 3, "n", null])),
        ("/json", json!({ "rms": 1.4 })),
        ("/list", json!(["a", "j"])),
    ];
    for (path, expected) in cases {
        assert_eq!(node.http().get(path).await.expect(200).json(), expected, "{path}");
    }
    assert_eq!(node.http().get("/again").await.expect(200).json()[0], "conflict");
    assert_eq!(node.http().get("/delete").await.expect(200).json(), json!([]));
    node.stop().await;
}
