//! What the standards say of single calls: each case is an expression and what it gives, or the name of what it throws.

use serde_json::{Value, json};

use super::script;

const HELPERS: &str = "
    const told = async (call) => { try { return await call(); } catch (error) { return 'throws ' + error.name; } };
    const utf8 = (text) => new TextEncoder().encode(text);
    const stream = (...texts) => new ReadableStream({ start(out) {
        for (const text of texts) out.enqueue(utf8(text));
        out.close();
    } });
    const all = async (...bodies) => Promise.all(bodies.map((body) => body.text()));
";

async fn check(cases: &[(&str, Value)]) {
    let calls: Vec<_> = cases.iter().map(|(call, _)| format!("await told(async () => {{ {call} }}),\n")).collect();
    let source =
        format!("{HELPERS} export default {{ async fetch() {{ return Response.json([{}]); }} }}", calls.concat());
    let (status, answer) = script(&source, "").await.get("/").await.unwrap();
    assert_eq!(status, 200, "{answer}");
    let found: Vec<Value> = serde_json::from_str(&answer).unwrap();
    for ((call, expected), found) in cases.iter().zip(found) {
        assert_eq!(found, *expected, "{call}");
    }
}

#[tokio::test]
async fn a_body_and_its_clones_are_read_each_for_itself() {
    check(&[
        (
            "const one = new Response(stream('a', 'b')), two = one.clone(), three = two.clone();
             return [await all(one, two, three), one.bodyUsed, two.bodyUsed];",
            json!([["ab", "ab", "ab"], true, true]),
        ),
        (
            "const one = new Request('http://a/', { method: 'POST', body: stream('a'), duplex: 'half' }), two = one.clone();
             return all(two, one);",
            json!(["a", "a"]),
        ),
        (
            "const one = new Response(stream('a')), two = one.clone();
             await two.body.getReader().read();
             return [two.bodyUsed, one.bodyUsed, await one.text()];",
            json!([true, false, "a"]),
        ),
        // As middleware wraps what it was answered.
        (
            "const one = new Response(stream('a')), two = new Response(one.body, one), three = two.clone();
             return [await all(two, three), one.bodyUsed];",
            json!([["a", "a"], true]),
        ),
        (
            "const one = new Response(new ReadableStream({ start: (out) => out.error(new RangeError()) })), two = one.clone();
             return [await told(() => one.text()), await told(() => two.text())];",
            json!(["throws RangeError", "throws RangeError"]),
        ),
        // What is done to the bytes of one is not done to those of another.
        (
            "const one = new Response(stream('abc')), two = one.clone(), three = two.clone();
             for await (const bytes of one.body) bytes.fill(65);
             for await (const bytes of two.body) bytes.buffer.transfer();
             return three.text();",
            json!("abc"),
        ),
        // Nothing is read of a stream before somebody asks, and what is given up by all is given up.
        (
            "const seen = [];
             const pull = (out) => { seen.push('pull'); out.enqueue(utf8('a')); }, cancel = () => seen.push('cancel');
             const source = new ReadableStream({ pull, cancel }, { highWaterMark: 0 });
             const one = new Response(source), two = one.clone(), reader = two.body.getReader();
             const before = seen.length;
             await reader.read();
             await Promise.all([one.body.cancel(), reader.cancel()]);
             return [before, seen];",
            json!([0, ["pull", "cancel"]]),
        ),
        ("const one = new Response(stream('a')); await one.text(); return one.clone();", json!("throws TypeError")),
        // Also where it was the stream that was read, and not the body.
        (
            "const read = stream('a', 'b'), reader = read.getReader();
             await reader.read();
             reader.releaseLock();
             return new Response(read);",
            json!("throws TypeError"),
        ),
        (
            "const cancelled = stream('a'), one = new Response(cancelled);
             await cancelled.cancel();
             return [one.bodyUsed, await told(() => one.text())];",
            json!([true, "throws TypeError"]),
        ),
    ])
    .await;
}

#[tokio::test]
async fn clones_are_of_the_same_kind_or_an_error_says_why_not() {
    check(&[
        (
            "const map = new Map([[{ a: 1 }, new Set([new Date(5)])]]).set('me', null);
             map.set('me', map);
             const copy = structuredClone(map), [key] = copy.keys();
             return [copy.get('me') === copy, key.a, [...copy.get(key)][0].getTime()];",
            json!([true, 1, 5]),
        ),
        (
            "const error = Object.assign(new RangeError('m', { cause: new TypeError('n') }), { extra: 1 });
             const copy = structuredClone(error);
             return [copy instanceof RangeError, copy.message, copy.cause instanceof TypeError, copy.extra ?? null,
                 Object.prototype.toString.call(copy)];",
            json!([true, "m", true, null, "[object Error]"]),
        ),
        (
            "const buffer = new Uint8Array([1, 2, 3]).buffer, bytes = new Uint8Array(buffer, 1);
             const copy = structuredClone({ bytes, buffer }, { transfer: [buffer] });
             return [buffer.byteLength, [...copy.bytes], copy.bytes.buffer === copy.buffer];",
            json!([0, [2, 3], true]),
        ),
        ("const copy = structuredClone(/a/gi); return [copy.source, copy.flags];", json!(["a", "gi"])),
        ("return structuredClone(new Blob(['abc'], { type: 'a/b' })).text();", json!("abc")),
        // What calls itself something is not that.
        ("return structuredClone({ [Symbol.toStringTag]: 'Map', a: 1 });", json!({ "a": 1 })),
        ("return structuredClone(Object.create(Date.prototype, { a: { value: 1, enumerable: true } }));", json!({ "a": 1 })),
        ("return structuredClone(Object.create(Map.prototype));", json!({})),
        (
            "const values = [new Map([[1, 2]]), new Set([1]), new Date()].map((value) => new Proxy(value, {}));
             return Promise.all(values.map((value) => told(() => structuredClone(value))));",
            json!(vec!["throws DataCloneError"; 3]),
        ),
        (
            "class Place { constructor(x) { this.x = x; } }
             return structuredClone([new Place(1), Object.create(null)]);",
            json!([{ "x": 1 }, {}]),
        ),
        // What the value itself throws comes through, whatever it is.
        (
            "class Mine extends RegExp { get source() { throw new TypeError('mine'); } }
             const values = [new Mine('a'), { get a() { throw new TypeError('mine'); } }];
             return values.map((value) => { try { structuredClone(value); } catch (error) { return error.message; } });",
            json!(["mine", "mine"]),
        ),
        ("const buffer = new ArrayBuffer(1); buffer.transfer(); return structuredClone(buffer);", json!("throws DataCloneError")),
        (
            "const buffer = new ArrayBuffer(1);
             return [await told(() => structuredClone(buffer, { transfer: [buffer, buffer] })), buffer.byteLength];",
            json!(["throws DataCloneError", 1]),
        ),
        (
            "const values = [() => 1, Symbol(), Promise.resolve(), new WeakRef({}), (function* () {})(), new Headers(), new URL('http://a/'),
                 new Response(), new AbortController().signal, stream()];
             return Promise.all(values.map((value) => told(() => structuredClone([value]))));",
            json!(vec!["throws DataCloneError"; 10]),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_json_web_key_is_taken_only_for_what_it_is_meant_for() {
    let key = |fields: &str| {
        format!(
            "const hmac = {{ name: 'HMAC', hash: 'SHA-256' }}, jwk = {{ kty: 'oct', k: 'AAECAwQFBgcICQoLDA0ODw', {fields} }};
             return (await crypto.subtle.importKey('jwk', jwk, hmac, true, ['sign'])).usages;"
        )
    };
    let taken =
        ["", "k: 'AAECAwQFBgcICQoLDA0ODw=='", "alg: 'HS256'", "use: 'sig'", "key_ops: ['verify', 'sign']", "ext: true"];
    let refused = [
        "kty: 'RSA'",
        "kty: undefined",
        "k: undefined",
        "k: ''",
        "k: 'a+/='",
        "k: 'AA==='",
        "alg: 'HS512'",
        "alg: 'A128GCM'",
        "use: 'enc'",
        "key_ops: ['verify']",
        "key_ops: ['sign', 'sign']",
        "key_ops: 'sign'",
        "ext: false",
    ];
    let taken = taken.map(|fields| (key(fields), json!(["sign"])));
    let refused = refused.map(|fields| (key(fields), json!("throws DataError")));
    let cases: Vec<_> =
        taken.iter().chain(&refused).map(|(call, expected)| (call.as_str(), expected.clone())).collect();
    check(&cases).await;
}

#[tokio::test]
async fn a_time_zone_that_is_not_there_is_an_error_and_no_wrong_time() {
    check(&[
        ("return new Date(0).toLocaleString('de-DE', { timeZone: 'Europe/Berlin' });", json!("throws RangeError")),
        ("return new Date(0).toLocaleTimeString([], { timeZone: 'Asia/Tokyo' });", json!("throws RangeError")),
        ("return new Date(0).toLocaleDateString('en-US', { timeZone: 'UTC' });", json!("01/01/1970")),
    ])
    .await;
}

#[tokio::test]
async fn small_things_that_libraries_rely_on() {
    check(&[
        // Iterating does not go through what a subclass makes of `get`.
        (
            "class Quoted extends Headers { get(name) { return `\"${super.get(name)}\"`; } }
             const headers = new Quoted({ a: '1' });
             return [[...headers], headers.get('a')];",
            json!([[["a", "1"]], "\"1\""]),
        ),
        // A handler has its place among the listeners, and is no property of the signal's own.
        (
            "const { signal } = new AbortController();
             return [Object.keys(signal), signal.onabort];",
            json!([[], null]),
        ),
        (
            "const controller = new AbortController(), seen = [];
             controller.signal.addEventListener('abort', () => seen.push('listener'));
             controller.signal.onabort = () => seen.push('first');
             controller.signal.onabort = () => seen.push('handler');
             controller.abort();
             return seen;",
            json!(["listener", "handler"]),
        ),
        ("return AbortSignal.timeout();", json!("throws TypeError")),
        ("new FormData().append('a');", json!("throws TypeError")),
        ("new FormData().append('a', 'text', 'name.txt');", json!("throws TypeError")),
        (
            "const form = new FormData();
             form.append('f', new File(['\\x00\\xff'], 'a\"\\n.bin', { type: 'a/b' }));
             const { name, type, size } = (await new Response(form).formData()).get('f');
             return [name, type, size];",
            json!(["a\"\n.bin", "a/b", 3]),
        ),
        // What cannot begin a character is not waited for.
        (
            "const decoder = new TextDecoder();
             return [[0xe0, 0x80], [0xed, 0xa0], [0xe2, 0x82], [0xac]].map((bytes) => decoder.decode(new Uint8Array(bytes), { stream: true }));",
            json!(["\u{fffd}\u{fffd}", "\u{fffd}\u{fffd}", "", "\u{20ac}"]),
        ),
        ("return new TextDecoder('cp1252').encoding;", json!("windows-1252")),
        ("return btoa();", json!("throws TypeError")),
    ])
    .await;
}
