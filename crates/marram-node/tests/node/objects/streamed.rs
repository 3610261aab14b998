//! Objects that are larger than the memory of the script that reads and writes them.

use http::Method;
use marram_testkit::{Ask, TestNode};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

async fn start(file: &str, source: &str, memory: &str) -> TestNode {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join(file);
    std::fs::write(&script, source).unwrap();
    let node = TestNode::start().await;
    let manifest = format!(
        "manifest_version = 1\n[app]\nname = \"site\"\n[[function]]\nname = \"f\"\ncomponent = \"{file}\"\n\
         on = [{{ http = \"/...\" }}]\nallow = {{ blob = [\"pictures\"] }}\n\
         limits = {{ cpu = \"20s\", deadline = \"60s\", memory = \"{memory}\", body = \"64MiB\" }}\n"
    );
    node.deploy(&manifest, &[("f", script)]).await.unwrap();
    node
}

async fn check(node: &TestNode, cases: &[(&str, Value)]) {
    for (path, expected) in cases {
        assert_eq!(node.http().get(path).await.expect(200).json(), *expected, "{path}");
    }
}

/// The sum of the first and the last byte of each piece, where the nth MiB is full of n.
fn sum(pieces: u64) -> u64 {
    (0..pieces).map(|n| 2 * n).sum()
}

const JAVASCRIPT: &str = r#"
const MIB = 1 << 20;
function pieces(count, failing) {
    let n = 0;
    return new ReadableStream({ pull(controller) {
        if (n === failing) throw new Error("the source broke off");
        if (n === count) return controller.close();
        controller.enqueue(new Uint8Array(MIB).fill(n++));
    } });
}
async function measure(stream) {
    let size = 0, sum = 0;
    for await (const chunk of stream) {
        if (chunk.length > MIB) throw new Error(`a piece of ${chunk.length} bytes`);
        size += chunk.length;
        sum += chunk[0] + chunk[chunk.length - 1];
    }
    return [size, sum];
}
export default { async fetch(request, env) {
    const { pictures } = env.blob;
    const show = (value) => Response.json(value ?? null);
    try {
        switch (new URL(request.url).pathname) {
            case "/put": return show((({ size, contentType }) => [size, contentType])(await pictures.put("big", pieces(40), { contentType: "video/x" })));
            case "/read": return show(await measure((await pictures.get("big")).body));
            case "/part": return show(await measure((await pictures.get("big", { range: { offset: 2 * MIB, length: 2 * MIB } })).body));
            case "/text": {
                const part = await pictures.get("big", { range: { offset: 37 * MIB } });
                const bytes = await part.bytes();
                return show([bytes.length, bytes[0], part.bodyUsed, await part.text().catch((error) => error.name)]);
            }
            case "/send": return new Response((await pictures.get("big")).body);
            case "/copy": return show((await pictures.put("copy", (await pictures.get("big")).body)).etag === (await pictures.head("big")).etag);
            case "/receive": return show((await pictures.put("received", request.body)).size);
            case "/received": return show(await measure((await pictures.get("received")).body));
            case "/broken": {
                const told = await pictures.put("broken", pieces(4, 2)).catch((error) => error.message);
                return show([told, await pictures.head("broken")]);
            }
            case "/strings": return show(await pictures.put("broken", new ReadableStream({ start(c) { c.enqueue("text"); c.close(); } })));
            case "/empty": return show([(await pictures.put("empty", pieces(0))).size, await (await pictures.get("empty")).text()]);
            case "/only-new": return show(await pictures.put("copy", pieces(1), { ifEtag: null }));
            case "/replaced": {
                const reader = (await pictures.get("copy")).body.getReader();
                await reader.read();
                await pictures.put("copy", "another");
                for (;;) if ((await reader.read()).done) return show("it was read to its end");
            }
            case "/many": {
                const never = () => new ReadableStream({ pull: () => new Promise(() => {}) });
                const puts = Array.from({ length: 17 }, (_, n) => pictures.put(`many-${n}`, never()));
                return show(await Promise.race(puts));
            }
        }
    } catch (error) {
        return show(`${error.kind ?? error.name}: ${error.message}`);
    }
} }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn by_javascript() {
    let node = start("index.js", JAVASCRIPT, "24MiB").await;
    check(
        &node,
        &[
            ("/put", json!([40 * MIB, "video/x"])),
            ("/read", json!([40 * MIB, sum(40)])),
            ("/part", json!([2 * MIB, 2 * (2 + 3)])),
            ("/text", json!([3 * MIB, 37, true, "TypeError"])),
            ("/copy", json!(true)),
            ("/broken", json!(["the source broke off", null])),
            ("/empty", json!([0, ""])),
        ],
    )
    .await;
    let sent = node.http().get("/send").await.expect(200);
    assert_eq!((sent.body.len() as u64, sent.body[0], sent.body.last()), (40 * MIB, 0, Some(&39)));
    let received = node.http().send(Ask::new(Method::PUT, "/receive").body(sent.body)).await.expect(200);
    assert_eq!(received.json(), json!(40 * MIB));
    let received = node.http().get("/received").await.expect(200).json();
    assert_eq!(received[0], json!(40 * MIB));
    for (path, part) in [
        ("/strings", "TypeError: the stream of an object has to give Uint8Arrays"),
        ("/only-new", "conflict: "),
        ("/replaced", "conflict: the object \\\"copy\\\" was replaced or deleted while it was read"),
        ("/many", "resource-limit: more than 16 objects"),
    ] {
        let told = node.http().get(path).await.expect(200).text();
        assert!(told.contains(part), "{path}: {told}");
    }
    node.stop().await;
}

const PYTHON: &str = r#"
from marram import Response, StateError

MIB = 1 << 20

def pieces(count, failing=None):
    for n in range(count):
        if n == failing:
            raise ValueError("the source broke off")
        yield bytes([n]) * MIB

def measure(found):
    size = total = 0
    for chunk in found.chunks():
        assert len(chunk) <= MIB
        size += len(chunk)
        total += chunk[0] + chunk[-1]
    return [size, total]

def fetch(request, env):
    try:
        return Response.json(answer(request.path, env.blob.pictures))
    except StateError as error:
        return Response.json([error.kind, str(error)])

def answer(path, pictures):
    match path:
        case "/put":
            put = pictures.put("big", pieces(160), content_type="video/x")
            return [put.size, put.content_type]
        case "/read": return measure(pictures.get("big"))
        case "/part":
            part = pictures.get("big", offset=2 * MIB, length=2 * MIB)
            return [measure(part), len(part.content), part.content[-1]]
        case "/copy": return pictures.put("copy", pictures.get("big").chunks()).etag == pictures.head("big").etag
        case "/lines": return [pictures.put("lines", iter(["a\n", b"b\n"])).size, pictures.get("lines").text()]
        case "/empty": return [pictures.put("empty", pieces(0)).size, list(pictures.get("empty").chunks())]
        case "/broken":
            try:
                pictures.put("broken", pieces(4, failing=2))
            except ValueError as error:
                return [str(error), pictures.head("broken")]
        case "/wrong":
            try:
                pictures.put("broken", iter([1]))
            except TypeError as error:
                return str(error)
        case "/replaced":
            chunks = pictures.get("copy").chunks()
            next(chunks)
            pictures.put("copy", "another")
            return len(list(chunks))
"#;

#[tokio::test(flavor = "multi_thread")]
async fn by_python() {
    let node = start("app.py", PYTHON, "96MiB").await;
    check(
        &node,
        &[
            ("/put", json!([160 * MIB, "video/x"])),
            ("/read", json!([160 * MIB, sum(160)])),
            ("/part", json!([[2 * MIB, 2 * (2 + 3)], 2 * MIB, 3])),
            ("/copy", json!(true)),
            ("/lines", json!([4, "a\nb\n"])),
            ("/empty", json!([0, []])),
            ("/broken", json!(["the source broke off", null])),
            ("/wrong", json!("a piece of an object is text or bytes, and not int")),
        ],
    )
    .await;
    assert_eq!(node.http().get("/replaced").await.expect(200).json()[0], "conflict");
    node.stop().await;
}
