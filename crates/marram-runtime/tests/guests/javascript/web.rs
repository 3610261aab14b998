//! The Web's interfaces as a function sees them.

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Request};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use marram_core::port::Body;
use marram_core::record::{Level, Outcome, Source};
use marram_core::{Failure, Kind};

use super::{script, try_script};
use crate::host::{Host, TOKEN, get, post};

#[tokio::test]
async fn a_request_and_its_answer() {
    let source = "export default { async fetch(request, env) {
        const url = new URL(request.url);
        const body = await request.json();
        return Response.json(
            { method: request.method, path: url.pathname, q: url.searchParams.get('q'), type: request.headers.get('content-type'), sum: body.a + body.b, currency: env.currency, key: env.api_key },
            { status: 201, headers: { 'x-made-by': 'caf\\u00e9' } },
        );
    } }";
    let host = script(source, "config = { currency = \"EUR\" }\nsecrets = [\"api_key\"]").await;
    let mut request = post("/price/7?q=a%20b", r#"{"a": 2, "b": 40}"#);
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    let response = host.send(request).await.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["x-made-by"].as_bytes(), b"caf\xe9");
    assert_eq!(response.headers()["content-type"], "application/json");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(
        String::from_utf8_lossy(&body),
        r#"{"method":"POST","path":"/price/7","q":"a b","type":"application/json","sum":42,"currency":"EUR","key":"s3cret"}"#
    );
    let record = host.observed.record().await;
    assert_eq!((record.outcome, record.status), (Outcome::Answered, 201));
    assert_eq!((record.bytes_in, record.bytes_out), (17, body.len() as u64));
    assert!(record.cpu_ns > 0 && record.memory_peak_bytes > 0, "{record:?}");
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let passed_on = "export default { fetch: (request) => new Response(request.body) }";
    let changed = "export default { fetch(request) {
        const upper = new TransformStream({ transform: (text, out) => out.enqueue(text.toUpperCase()) });
        return new Response(request.body.pipeThrough(new TextDecoderStream()).pipeThrough(upper).pipeThrough(new TextEncoderStream()));
    } }";
    for (source, first) in [(passed_on, "first"), (changed, "FIRST")] {
        let host = script(source, "").await;
        let (mut send, receive) = futures::channel::mpsc::channel::<Result<Frame<Bytes>, Failure>>(1);
        let body: Body = StreamBody::new(receive).boxed_unsync();
        send.send(Ok(Frame::data(Bytes::from_static(b"first")))).await.unwrap();
        let response = host.send(Request::post("http://shop.example/").body(body).unwrap()).await.unwrap();
        let mut body = response.into_body().into_data_stream();
        assert_eq!(body.next().await.unwrap().unwrap(), first, "the first piece comes before the second is sent");
        send.send(Ok(Frame::data(Bytes::from_static(b" second")))).await.unwrap();
        drop(send);
        let mut rest = Vec::new();
        while let Some(piece) = body.next().await {
            rest.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(String::from_utf8_lossy(&rest).to_lowercase(), " second");
        drop(body);
        let record = host.observed.record().await;
        assert_eq!((record.outcome, record.bytes_out), (Outcome::Answered, 12), "{record:?}");
    }
}

#[tokio::test]
async fn a_large_body_goes_through_in_pieces() {
    let source = "export default { async fetch(request) {
        let bytes = 0;
        for await (const piece of request.body) bytes += piece.length;
        return new Response(new ReadableStream({ pull(out) {
            if (bytes <= 0) return out.close();
            out.enqueue(new Uint8Array(Math.min(bytes, 100_000)).fill(7));
            bytes -= 100_000;
        } }));
    } }";
    let host = script(source, "limits = { memory = \"32MiB\", body = \"64MiB\" }").await;
    let pieces = futures::stream::iter((0..600).map(|_| Ok::<_, Failure>(Frame::data(Bytes::from(vec![1; 100_000])))));
    let request = Request::post("http://shop.example/").body(StreamBody::new(pieces).boxed_unsync()).unwrap();
    let body = host.send(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body.len(), 60_000_000);
    assert!(body.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn functions_call_each_other_and_are_refused_the_rest() {
    let page = "export default { async fetch() {
        const price = await fetch('http://price.internal/7', { method: 'POST', body: 'shoes' });
        let refused = '';
        try { await fetch('http://stock.internal/'); } catch (error) { refused = error.message; }
        return new Response(`${price.status} ${await price.text()} | ${refused}`);
    } }";
    let price = "export default { fetch: async (request) => new Response('9.50 for ' + await request.text(), { status: 203 }) }";
    let functions = "[[function]]\nname = \"page\"\ncomponent = \"page.js\"\nallow = { http = [\"internal:price\"] }
        [[function]]\nname = \"price\"\ncomponent = \"price.js\"
        [[function]]\nname = \"stock\"\ncomponent = \"price.js\"\n";
    let host = Host::try_sources(functions, &[("page.js", page), ("price.js", price)]).await.unwrap();
    let function = host.function("page").clone();
    let answer = host.send_to(&function, get("/")).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("203 9.50 for shoes | "), "{text}");
    assert!(text.contains("add \"internal:stock\" to its allow.http"), "{text}");
}

/// What one function sends to another: the fields that it asks for, and what comes of them.
async fn pass_on(headers: &str, body: &str) -> String {
    let page = "export default { async fetch() {
        const streamed = (text) => new Blob([text]).stream();
        try {
            const answer = await fetch('http://seen.internal/', { method: 'POST', headers: HEADERS, body: BODY });
            return new Response(await answer.text());
        } catch (error) { return new Response('refused: ' + error.message); }
    } }";
    let page = page.replace("HEADERS", headers).replace("BODY", body);
    let seen = "export default { async fetch(request) {
        const text = await request.text().catch((error) => 'broken off: ' + error.message);
        return new Response([...request.headers.keys()].filter((name) => name !== 'traceparent').join(' ') + ' | ' + text);
    } }";
    let functions = "[[function]]\nname = \"page\"\ncomponent = \"page.js\"\nallow = { http = [\"internal:seen\"] }
        [[function]]\nname = \"seen\"\ncomponent = \"seen.js\"\n";
    let host = Host::try_sources(functions, &[("page.js", page.as_str()), ("seen.js", seen)]).await.unwrap();
    host.get("/").await.unwrap().1
}

#[tokio::test]
async fn functions_of_an_app_send_each_other_no_more_than_servers() {
    let forged = "{ 'content-type': 'a/b', 'marram-trigger': 'mqtt:x', 'marram-param-id': '1', 'connection': 'x-hop', 'x-hop': '1', 'x-kept': '1', 'proxy-authorization': 'x' }";
    assert_eq!(pass_on(forged, "'hello'").await, "content-type x-kept | hello");
    // A length is true, or the request goes nowhere.
    let typed = |length| format!("{{ 'content-type': 'a/b', 'content-length': '{length}' }}");
    assert_eq!(pass_on(&typed(5), "'hello'").await, "content-length content-type | hello");
    let refused = pass_on(&typed(99), "'hello'").await;
    assert!(refused.starts_with("refused: ") && refused.contains("content-length"), "{refused}");
    assert_eq!(pass_on(&typed(5), "streamed('hello')").await, "content-length content-type | hello");
    let short = pass_on(&typed(9), "streamed('hello')").await;
    assert!(short.contains("broken off: ") || short.starts_with("refused: "), "{short}");
}

#[tokio::test]
async fn timers_fire_in_the_order_in_which_they_were_set() {
    let source = "export default { async fetch() {
        const fired = [];
        const after = (name, ms) => new Promise((resolve) => setTimeout(() => { fired.push(name); resolve(); }, ms));
        const many = [];
        for (let n = 0; n < 64; n++) many.push(after(n, 5));
        await Promise.all(many);
        for (let n = 0; n < 16; n++) await Promise.all([after('a', 0), after('b', 1)]);
        // What is cleared does not come, and longer ones that were set earlier hold nobody up. Each has a turn of its own:
        // promises that one settles are done before the next one.
        const late = setTimeout(() => fired.push('late'), 60_000);
        clearTimeout(setTimeout(() => fired.push('cleared'), 0));
        setTimeout(() => Promise.resolve().then(() => fired.push('its promise')), 2);
        await Promise.all([after('next', 2), after('soon', 1)]);
        clearTimeout(late);
        return new Response(fired.join(' '));
    } }";
    let many: Vec<_> = (0..64).map(|n| n.to_string()).collect();
    let expected = format!("{} {} soon its promise next", many.join(" "), ["a b"; 16].join(" "));
    assert_eq!(script(source, "").await.get("/").await.unwrap(), (200, expected));
}

#[tokio::test]
async fn names_marks_and_clocks_are_as_the_standards_have_them() {
    let source = "export default { async fetch(request, env) {
        const clone = structuredClone(JSON.parse('{\"__proto__\": {\"x\": 1}, \"y\": 2}'));
        return Response.json({
            // First: the clock begins with its first reading.
            forward: performance.now() >= 0,
            clone: [Object.keys(clone), clone.x ?? 'none'],
            env: [Object.hasOwn(env, '__proto__'), env.__proto__, env.other],
            text: [...await new Response('\\ufeff\\ufeffabc').text()].length,
            json: await new Request('http://a/', { method: 'POST', body: '\\ufeff[1]' }).json(),
        });
    } }";
    let host = script(source, "config = { \"__proto__\" = \"p\", other = \"o\" }").await;
    let expected = r#"{"forward":true,"clone":[["__proto__","y"],"none"],"env":[true,"p","o"],"text":4,"json":[1]}"#;
    assert_eq!(host.get("/").await.unwrap(), (200, expected.to_owned()));
}

#[tokio::test]
async fn console_lines_belong_to_their_request() {
    let source = "export default { async fetch(request) {
        const { pathname } = new URL(request.url);
        console.log('begin', pathname, { a: [1, 2] });
        await new Promise((resolve) => setTimeout(resolve, 20));
        console.error('end', pathname);
        return new Response('ok');
    } }";
    let host = script(source, "instances = { concurrent = 4 }").await;
    let (one, two) = tokio::join!(host.get("/one"), host.get("/two"));
    assert_eq!((one.unwrap().0, two.unwrap().0), (200, 200));
    let logs = host.observed.logs.lock().unwrap();
    let of = |text: &str| {
        let line = logs.iter().find(|line| line.text.contains(text)).unwrap_or_else(|| panic!("no {text} in {logs:?}"));
        (line.request.unwrap(), line.level, line.source)
    };
    assert_eq!(of("begin /one").0, of("end /one").0);
    assert_eq!(of("begin /two").0, of("end /two").0);
    assert_ne!(of("begin /one").0, of("begin /two").0);
    assert_eq!((of("begin /one").1, of("end /one").1), (Level::Info, Level::Error));
    assert_eq!(of("end /two").2, Source::Logging);
    assert!(logs.iter().any(|line| line.text.contains("{ a: [ 1, 2 ] }")), "{logs:?}");
}

#[tokio::test]
async fn secrets_do_not_come_into_the_log() {
    let source = "export default { async fetch(request, env) {
        console.log('with', env.token);
        console.error({ token: env.token });
        // Cut in the middle of it, if it were cut first.
        console.log('x'.repeat(16 * 1024 - 9) + env.token);
        throw new Error('refused: ' + env.token);
    } }";
    let host = script(source, "secrets = [\"token\"]").await;
    let failure = host.get("/").await.expect_err("it throws");
    assert_eq!(failure.kind(), Kind::Trap, "{failure:?}");
    let texts = host.observed.texts();
    assert_eq!(texts[0], "with (secret token)");
    assert!(texts[1].contains("(secret token)"), "{texts:?}");
    assert!(texts[2].contains("x(secret") && texts[2].contains("line cut"), "{texts:?}");
    assert!(texts[3].contains("refused: (secret token)"), "{texts:?}");
    assert!(!texts.iter().any(|text| text.contains(&TOKEN[..4])), "{texts:?}");
}

#[tokio::test]
async fn randomness_and_time_are_not_frozen() {
    let source = "export default { fetch: () => Response.json([Math.random(), crypto.randomUUID(), [...crypto.getRandomValues(new Uint8Array(8))], Date.now()]) }";
    let host = script(source, "instances = \"fresh\"").await;
    let (one, two) = (host.get("/").await.unwrap().1, host.get("/").await.unwrap().1);
    let (one, two): (serde_json::Value, serde_json::Value) =
        (serde_json::from_str(&one).unwrap(), serde_json::from_str(&two).unwrap());
    for part in 0..3 {
        assert_ne!(one[part], two[part]);
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    assert!((now - one[3].as_i64().unwrap()).abs() < 60_000, "{one}");
}

#[tokio::test]
async fn digests_and_signatures_are_right() {
    let source = "const hex = (buffer) => [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
        export default { async fetch() {
            const text = new TextEncoder().encode('abc');
            const key = await crypto.subtle.importKey('raw', new TextEncoder().encode('key'), { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
            return new Response([hex(await crypto.subtle.digest('SHA-256', text)), hex(await crypto.subtle.sign('HMAC', key, text))].join(' '));
        } }";
    let body = script(source, "").await.get("/").await.unwrap().1;
    // FIPS 180-4's example, and `printf abc | openssl dgst -sha256 -hmac key`.
    let sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let hmac = "9c196e32dc0175f86f4b1cb89289d6619de6bee699e4c378e68309ed97a1a6ab";
    assert_eq!(body, format!("{sha} {hmac}"));
}

#[tokio::test]
async fn what_does_not_load_is_refused_with_its_place() {
    let cases = [
        ("export default {\n  fetch() { return new Response(; }\n}", "src/index.js:2:", "SyntaxError"),
        ("const x = 1;\nx.y.z();\nexport default { fetch() {} }", "src/index.js:2:", "TypeError"),
        ("export const other = 1;", "src/index.js", "the module has no handler"),
        ("import x from './other.js';\nexport default x;", "src/index.js", "other.js"),
        ("await new Promise(() => {});\nexport default { fetch() {} }", "src/index.js", "top-level await never ends"),
        (
            "await fetch('http://x.example/');\nexport default { fetch() {} }",
            "src/index.js",
            "not allowed at the module's top level",
        ),
    ];
    for (source, place, part) in cases {
        let failure = try_script(source, "").await.err().unwrap_or_else(|| panic!("{source} was taken"));
        assert_eq!(failure.kind(), Kind::Invalid, "{failure:?}");
        assert!(failure.message().contains(place), "{place:?} is not in {failure:?}");
        assert!(failure.message().contains(part), "{part:?} is not in {failure:?}");
    }
}
