//! The standard library, of which there are no files when a function runs: what is not in the engine is not there.

use http_body_util::BodyExt as _;

use super::python;
use crate::host::post;

/// What a part of the library imports or looks up only when it is used, and what comes of it.
const USED: [(&str, &str); 22] = [
    ("datetime.datetime.strptime('02 Jan 2024 +0100', '%d %b %Y %z').isoformat()", "'2024-01-02T00:00:00+01:00'"),
    ("time.strptime('2024', '%Y').tm_year", "2024"),
    ("ast.unparse(ast.parse('a+1'))", "'a + 1'"),
    ("2**40000 // 3**9000 % 97", "12"),
    ("xml.dom.minidom.parseString('<a><b/></a>').toxml()", "'<?xml version=\"1.0\" ?><a><b/></a>'"),
    ("xml.sax.parseString(b'<a/>', xml.sax.ContentHandler())", "None"),
    ("len(list(xml.dom.pulldom.parseString('<a/>')))", "3"),
    ("email.mime.text.MIMEText('h\\u00fc').as_string()[:12]", "'Content-Type'"),
    ("email.mime.multipart.MIMEMultipart().as_bytes()[:12]", "b'Content-Type'"),
    (
        "email.message_from_bytes(b'Subject: =?iso-2022-jp?b?GyRCRnxLXBsoQg==?=', policy=email.policy.default)['subject']",
        "'\u{65e5}\u{672c}'",
    ),
    ("zipped('cp437')", "['a', '\u{fc}']"),
    ("json.loads('{\"a\": 1}'.encode('utf-16-le')), json.loads(b'\\xef\\xbb\\xbf2')", "({'a': 1}, 2)"),
    (
        "b'\\xef\\xbb\\xbfa'.decode('utf-8-sig'), 'a'.encode('utf-16-be'), 'a'.encode('utf-32-le')",
        "('a', b'\\x00a', b'a\\x00\\x00\\x00')",
    ),
    (
        "b'\\xa4'.decode('iso8859-15'), b'\\x81'.decode('cp850'), b'\\xa5'.decode('cp1250')",
        "('\u{20ac}', '\u{fc}', '\u{104}')",
    ),
    (
        "b'\\xe0'.decode('cp1251'), b'\\xc1'.decode('koi8-r'), b'\\xa5'.decode('mac-roman')",
        "('\u{430}', '\u{430}', '\u{2022}')",
    ),
    (
        "b'\\x93\\xfa'.decode('shift_jis'), b'\\xc4\\xe3'.decode('gbk'), b'\\xa7A'.decode('big5')",
        "('\u{65e5}', '\u{4f60}', '\u{4f60}')",
    ),
    (
        "'\\u00e4'.encode('utf-7'), codecs.encode('a', 'rot13'), codecs.encode(b'=', 'quopri')",
        "(b'+AOQ-', 'n', b'=3D')",
    ),
    (
        "hashlib.pbkdf2_hmac('sha256', b'password', b'salt', 4096, 20).hex()",
        "'c5e478d59288c841aa530db6845c4c8d962893a0'",
    ),
    (
        "hashlib.pbkdf2_hmac('sha1', b'passwordPASSWORDpassword', b'saltSALTsaltSALTsaltSALTsaltSALTsalt', 4096, 25).hex()",
        "'3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038'",
    ),
    ("tested()", "True"),
    ("str(datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo('Europe/Berlin')))", "'2024-07-01 00:00:00+02:00'"),
    ("logging.config.dictConfig({'version': 1, 'handlers': {'h': {'class': 'logging.StreamHandler'}}})", "None"),
];

#[tokio::test]
async fn what_the_library_imports_late_is_there() {
    let source = r#"
import ast, codecs, datetime, email, email.mime.multipart, email.mime.text, email.policy, hashlib, io, json, logging
import logging.config, time, unittest, xml.dom.minidom, xml.dom.pulldom, xml.sax, zipfile, zoneinfo


def zipped(encoding):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", "x")
        archive.writestr("\u00fc", "y")
    with zipfile.ZipFile(file, metadata_encoding=encoding) as archive:
        return archive.namelist()


def tested():
    class Case(unittest.IsolatedAsyncioTestCase):
        async def test_that_it_logs(self):
            with self.assertLogs("shop"):
                logging.getLogger("shop").warning("sold out")

    cases = unittest.defaultTestLoader.loadTestsFromTestCase(Case)
    return unittest.TextTestRunner(stream=io.StringIO()).run(cases).wasSuccessful()


def fetch(request):
    try:
        return repr(eval(request.text()))
    except Exception as error:
        return repr(error)
"#;
    let host = python(source, "").await;
    let mut wrong = Vec::new();
    for (expression, expected) in USED {
        let answer =
            host.send(post("/", expression)).await.unwrap_or_else(|failure| panic!("{expression}: {failure:?}"));
        let answer = answer.into_body().collect().await.unwrap().to_bytes();
        if answer != expected {
            wrong.push(format!("{expression}: {}", String::from_utf8_lossy(&answer)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
