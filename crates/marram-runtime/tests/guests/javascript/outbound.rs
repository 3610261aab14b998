//! What a function fetches: which headers go along, who follows, and how a body ends that is not wanted any more.

use http::HeaderValue;
use http_body_util::BodyExt as _;

use crate::host::{Host, get};

/// What a function answers that hands its request on to another one, whose source this is.
async fn proxied(page: &str, seen: &str) -> (u16, String) {
    let functions = "[[function]]\nname = \"page\"\ncomponent = \"page.js\"\nallow = { http = [\"internal:seen\"] }
        [[function]]\nname = \"seen\"\ncomponent = \"seen.js\"\n";
    let host = Host::try_sources(functions, &[("page.js", page), ("seen.js", seen)]).await.unwrap();
    let mut request = get("/");
    request.headers_mut().insert("accept-encoding", HeaderValue::from_static("gzip"));
    let response = host.send_to(&host.function("page").clone(), request).await.unwrap();
    let status = response.status().as_u16();
    (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn a_request_that_is_handed_on_is_answered_as_the_server_answers() {
    // Bodies are not decoded, so that none comes encoded; `fetch(request)` does not follow where the client may want to.
    let seen = "export default { fetch: (request) => new Response(request.headers.get('accept-encoding') ?? 'plain') }";
    for request in
        ["new Request('http://seen.internal/', request)", "'http://seen.internal/', { headers: request.headers }"]
    {
        let page = format!("export default {{ fetch: (request) => fetch({request}) }}");
        assert_eq!(proxied(&page, seen).await, (200, "plain".to_owned()), "{request}");
    }
    // A function that signs its headers says that it wants none.
    let page = "export default { fetch: () => fetch('http://seen.internal/', { headers: { 'accept-encoding': 'identity' } }) }";
    assert_eq!(proxied(page, seen).await, (200, "identity".to_owned()));
    let page = "export default { fetch: (request) => fetch('http://seen.internal/', request) }";
    let moved =
        "export default { fetch: () => new Response('moved', { status: 302, headers: { location: '/elsewhere' } }) }";
    assert_eq!(proxied(page, moved).await, (302, "moved".to_owned()));
}

#[tokio::test]
async fn a_body_that_is_given_up_ends_with_the_reason() {
    let endless = "export default { fetch: () => new Response(new ReadableStream({
        start: (out) => out.enqueue(new Uint8Array([104, 105])), pull: () => new Promise(() => {}) })) }";
    let page = "export default { async fetch() {
        const told = [];
        for (const reason of [undefined, 'enough', null, new RangeError('mine')]) {
            const controller = new AbortController();
            const { body } = await fetch('http://seen.internal/', { signal: controller.signal });
            const reader = body.getReader();
            await reader.read();
            const next = reader.read();
            controller.abort(reason);
            told.push(await next.then(() => 'read', (error) => error?.name ?? error));
        }
        return Response.json(told);
    } }";
    assert_eq!(proxied(page, endless).await, (200, r#"["AbortError","enough",null,"RangeError"]"#.to_owned()));
}
