"""What bodies are made of: text or bytes on their way out, forms and cookies on their way in."""

import email.parser
import http.cookies
import re
import urllib.parse
from collections.abc import Buffer, Mapping

ANSWER = "a response's body is text, bytes, or an iterable of either"
_PIECE = "a piece of a response's body is text or bytes"

# Takes time in proportion to what it reads, whatever that is: no character can belong to two neighbours.
_PARAMETER = re.compile(r';\s*+([^\s=;"]++)\s*+=\s*+(?:"([^"\\]*+(?:\\.[^"\\]*+)*+)"|([^;]*+))', re.S)


def to_bytes(body, rule):
    """Text or bytes as bytes; nothing at all is an empty body. `bytes(5)` would be five zeros."""
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, Buffer):
        return bytes(body)
    raise TypeError(f"{rule}, not {type(body).__name__}: convert it with str(), or send it as JSON")


def piece(value):
    """A piece of a streamed body as bytes."""
    if value is None:
        raise TypeError(f"{_PIECE}, not None")
    return to_bytes(value, _PIECE)


def answer(body):
    """The body of a response: bytes, or what is streamed."""
    if isinstance(body, Mapping):
        # Iterating would send the keys.
        raise TypeError(f"{ANSWER}, not {type(body).__name__}: use Response.json for JSON")
    if isinstance(body, (list, tuple, set, frozenset)):
        return [piece(value) for value in body]
    streamed = not isinstance(body, (str, Buffer)) and (hasattr(body, "__iter__") or hasattr(body, "__aiter__"))
    return body if streamed else to_bytes(body, ANSWER)


def cookies(header):
    """The cookies of a request by name. What is in one is up to who set it: JSON has quotes and commas."""
    found = {}
    for pair in header.split(";"):
        name, equals, value = pair.partition("=")
        if equals:
            found[name.strip()] = http.cookies.SimpleCookie().value_decode(value.strip())[0]
    return found


def parts_of_form(content_type, body):
    """Each field of a form: its name, its content as bytes, and its file's name and kind, both None where it is no file.
    Raises ValueError for what is no form."""
    kind, parameters = _header(content_type or "application/x-www-form-urlencoded")
    if kind == "application/x-www-form-urlencoded":
        text = body.decode("utf-8", "replace")
        return [(name, value.encode(), None, None) for name, value in urllib.parse.parse_qsl(text, keep_blank_values=True)]
    if kind != "multipart/form-data":
        raise ValueError(f"the request's body is no form but {content_type}: read it with json(), text() or body")
    if not parameters.get("boundary"):
        raise ValueError("the request's content-type is multipart/form-data, but names no boundary")
    return _parts(body, b"\r\n--" + parameters["boundary"].encode())


def _header(value):
    """The value of a header in lower case, and its parameters; of one that repeats, the first."""
    kind, mark, rest = value.partition(";")
    parameters = {}
    for name, quoted, plain in _PARAMETER.findall(mark + rest):
        # Browsers leave every other backslash as it is.
        text = re.sub(r'\\(["\\])', r"\1", quoted) if quoted else plain.strip()
        parameters.setdefault(name.lower(), text)
    extended = parameters.pop("filename*", None)
    if extended is not None:
        parameters.setdefault("filename", _extended(extended))
    return kind.strip().lower(), parameters


def _extended(text):
    """RFC 8187: charset, language and what has the characters. Another charset than these is left as it is."""
    charset, _, rest = text.partition("'")
    _, mark, value = rest.partition("'")
    known = mark and charset.lower() in ("utf-8", "iso-8859-1")
    return urllib.parse.unquote(value, charset) if known else text


def _parts(body, boundary):
    """RFC 7578: the parts are between lines with the boundary, the last of which ends with `--`."""
    found = []
    for part in (b"\r\n" + body).split(boundary)[1:]:
        if part.startswith(b"--"):
            return found
        head, blank, content = part.partition(b"\r\n\r\n")
        # Names of fields and files are in UTF-8 as they are.
        fields = email.parser.HeaderParser().parsestr(head.decode("utf-8", "replace").lstrip())
        disposition, parameters = _header(fields.get("content-disposition", ""))
        if not blank or disposition != "form-data" or "name" not in parameters:
            raise ValueError("a part of the multipart/form-data body has no head with a name")
        file = parameters.get("filename")
        kind = None if file is None else fields.get("content-type", "application/octet-stream")
        found.append((parameters["name"], content, file, kind))
    raise ValueError("the multipart/form-data body breaks off before its end")
