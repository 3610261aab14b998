//! Requests and responses as a function has them: headers, cookies, forms, redirects, and what cannot be sent.

use http::{HeaderName, HeaderValue};
use http_body_util::BodyExt as _;
use marram_core::Kind;

use super::python;
use crate::host::{Host, get, post};

/// Sends a body with headers; the text that comes back.
async fn send(host: &Host, headers: &[(&str, &str)], body: &str) -> String {
    let mut request = post("/", body.to_owned());
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
    }
    let answer = host.send(request).await.unwrap_or_else(|failure| panic!("{headers:?}: {failure:?}"));
    String::from_utf8_lossy(&answer.into_body().collect().await.unwrap().to_bytes()).into_owned()
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_with_what_to_do() {
    let body = "a response's body is text, bytes, or an iterable of either, not dict: use Response.json";
    let piece = "a piece of a response's body is text or bytes, not";
    for (expression, part) in [
        ("Response({'a': 1})", body.to_owned()),
        ("Response(['a', 1])", format!("{piece} int: convert it with str()")),
        ("Response(value for value in [None])", format!("{piece} None")),
        ("Response('x', headers={'x-price': '5 \\u20ac'})", "header 'x-price' has '€', which HTTP does not".to_owned()),
        ("asyncio.current_task().cancel()", "CancelledError".to_owned()),
    ] {
        let source = format!(
            "import asyncio\nfrom marram import Response\n\n\nasync def fetch(request):\n    answer = {expression}\n    \
             await asyncio.sleep(0)\n    return answer\n"
        );
        let host = python(&source, "").await;
        let failure = match host.send(get("/")).await {
            Err(failure) => failure,
            Ok(response) => response.into_body().collect().await.expect_err("it is complete"),
        };
        assert_eq!(failure.kind(), Kind::Trap, "{expression}: {failure:?}");
        let texts = host.observed.texts();
        assert!(texts.iter().any(|text| text.contains(&part)), "{part:?}: {texts:?}");
        assert!(!texts.iter().any(|text| text.contains("panicked")), "{expression}: {texts:?}");
    }
}

#[tokio::test]
async fn headers_that_a_response_was_given_stay_as_they_were() {
    let source = "from marram import Headers, Response

COMMON = Headers({\"x-shop\": \"1\"})


def fetch(request):
    Response.html(\"<p>\", headers=COMMON)
    return Response(\"plain\", headers=COMMON)
";
    let response = python(source, "").await.send(get("/")).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(response.headers()["x-shop"], "1");
}

#[tokio::test]
async fn cookies_come_as_they_were_set() {
    let source = "def fetch(request):\n    return repr(request.cookies)\n";
    let wsgi = "def app(environ, start_response):\n    start_response('200 OK', [])\n    \
                return [environ['HTTP_COOKIE'].encode()]\n";
    let cookies = r#"cart={"tea":2,"milk":1}; quoted="a\"b\054c"; broken; sum=1=1; none="#;
    let expected = r#"{'cart': '{"tea":2,"milk":1}', 'quoted': 'a"b,c', 'sum': '1=1', 'none': '', 'more': '2'}"#;
    // HTTP/2 may send each in a field of its own.
    let fields = [("cookie", cookies), ("cookie", "more=2")];
    assert_eq!(send(&python(source, "").await, &fields, "").await, expected);
    assert_eq!(send(&python(wsgi, "").await, &fields, "").await, format!("{cookies}; more=2"));
}

#[tokio::test]
async fn forms_come_with_their_files() {
    let source = "from marram import File


def fetch(request):
    try:
        form = request.form()
    except ValueError as error:
        return str(error)
    def told(value):
        return f\"{value.filename}|{value.content_type}|{value.body!r}\" if isinstance(value, File) else value

    return \"\".join(f\"{name}={told(value)};\" for name, value in form.items())
";
    let host = python(source, "").await;
    let part =
        |head: &str, content: &str| format!("--cut\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n");
    let file = "name=\"photo\"; filename=\"my \u{fc}; cat.png\"\r\nContent-Type: image/png";
    let parts = part("name=\"title\"", "a \u{fc}") + &part(file, "\r\n\0--cut\r\n") + &part("name=none", "");
    let multipart = "multipart/form-data; boundary=cut";
    for (content_type, body, expected) in [
        ("application/x-www-form-urlencoded", "a=1&b=%C3%BC+x&a=2", "a=2;b=\u{fc} x;".to_owned()),
        (
            multipart,
            &format!("before\r\n{parts}--cut--\r\nafter"),
            "title=a \u{fc};photo=my \u{fc}; cat.png|image/png|b'\\r\\n\\x00--cut\\r\\n';none=;".to_owned(),
        ),
        (
            multipart,
            &(part(r#"name="a\"b"; filename="C:\x\\y""#, "") + "--cut--"),
            r#"a"b=C:\x\y|application/octet-stream|b'';"#.to_owned(),
        ),
        (
            multipart,
            &(part("name=f; filename*=utf-8'de'%C3%BC.txt", "x") + "--cut--"),
            "f=\u{fc}.txt|application/octet-stream|b'x';".to_owned(),
        ),
        // Far too long for anything whose time grows with the square of it.
        (multipart, &(part(&format!("name=long{}", ";".repeat(200_000)), "x") + "--cut--"), "long=x;".to_owned()),
        ("Multipart/Form-Data; boundary=\"cut\"", "--cut--", String::new()),
        (multipart, &parts, "the multipart/form-data body breaks off before its end".to_owned()),
        (
            multipart,
            "--cut\r\n\r\nx\r\n--cut--",
            "a part of the multipart/form-data body has no head with a name".to_owned(),
        ),
        (
            "multipart/form-data",
            "x",
            "the request's content-type is multipart/form-data, but names no boundary".to_owned(),
        ),
        (
            "application/json",
            "{}",
            "the request's body is no form but application/json: read it with json(), text() or body".to_owned(),
        ),
    ] {
        assert_eq!(send(&host, &[("content-type", content_type)], body).await, expected, "{content_type} {body:?}");
    }
}

#[tokio::test]
async fn no_header_reaches_wsgi_under_another_one_s_name() {
    let source = "def app(environ, start_response):
    start_response(\"200 OK\", [])
    return [f\"{environ.get('CONTENT_LENGTH')} {environ['HTTP_X_USER']} {environ['wsgi.input'].read()}\".encode()]
";
    let host = python(source, "").await;
    let headers = [("content_length", "1"), ("x-user", "anna"), ("x_user", "root"), ("content-length", "3")];
    assert_eq!(send(&host, &headers, "abc").await, "3 anna b'abc'");
}

#[tokio::test]
async fn redirects_are_followed_as_the_standard_says() {
    let source = r#"
import marram

SHOP = "http://shop.internal"


async def fetch(request):
    told = []
    for method, path, more in [
        ("GET", "/302/end", {}),
        ("POST", "/302/end", {}),
        ("POST", "/307/end", {}),
        ("PUT", "/303/end", {}),
        ("PUT", "/302/end", {}),
        ("GET", "/302/same", {}),
        ("GET", "/302/away", {}),
        ("GET", "/302/refused", {}),
        ("GET", "/302/broken", {}),
        ("GET", "/302/end", {"redirect": "manual"}),
        ("GET", "/302/end", {"redirect": "error"}),
        ("GET", "/304/end", {}),
        ("GET", "/302/loop", {}),
    ]:
        headers = {"authorization": "secret", "content-type": "text/x"}
        body = None if method == "GET" else "body"
        try:
            answer = await marram.fetch(SHOP + path, method, headers, body, **more)
            told.append(f"{answer.status} {answer.url} {answer.text()}".strip())
            again = marram.fetch_sync(SHOP + path, method, headers, body, **more)
            assert (again.status, again.url, again.body) == (answer.status, answer.url, answer.body)
        except marram.FetchError as error:
            told.append(str(error))
    return "\n".join(told)
"#;
    let shop = "export default { async fetch(request) {
        const [, status, name] = new URL(request.url).pathname.split('/');
        const targets = {
            end: '/end', same: 'http://me:word@SHOP.internal:80/end#part', away: 'http://other.internal/end',
            refused: 'http://refused.internal/', broken: 'http://[broken/', loop: '/302/loop',
        };
        if (name) return new Response(null, { status: Number(status), headers: { location: targets[name] } });
        const [secret, type] = ['authorization', 'content-type'].map((name) => request.headers.get(name));
        return new Response([request.method, secret, type, await request.text()].join());
    } }";
    let functions =
        "[[function]]\nname = \"f\"\ncomponent = \"app.py\"\nallow = { http = [\"internal:shop\", \"internal:other\"] }
        [[function]]\nname = \"shop\"\ncomponent = \"shop.js\"\n\
        [[function]]\nname = \"other\"\ncomponent = \"shop.js\"\n";
    let host = Host::try_sources(functions, &[("app.py", source), ("shop.js", shop)]).await.unwrap();
    let (_, told) = host.get("/").await.unwrap();
    let expected = "200 http://shop.internal/end GET,secret,text/x,
200 http://shop.internal/end GET,secret,,
200 http://shop.internal/end POST,secret,text/x,body
200 http://shop.internal/end GET,secret,,
200 http://shop.internal/end PUT,secret,text/x,body
200 http://SHOP.internal:80/end GET,secret,text/x,
200 http://other.internal/end GET,,text/x,
GET http://shop.internal/302/refused, redirected to http://refused.internal/: http request denied
GET http://shop.internal/302/broken: it redirects to http://[broken/, which is no URL
302 http://shop.internal/302/end
GET http://shop.internal/302/end: it redirects to /end
304 http://shop.internal/304/end
GET http://shop.internal/302/loop, redirected to http://shop.internal/302/loop: it redirects more than 20 times";
    assert_eq!(told, expected);
}
