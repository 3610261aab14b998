"""What a Python function on Marram is given and gives back: Request, Response, Headers, File for what came with a form,
fetch for requests of its own, and StateError for what `env.kv`, `env.stream` and `env.mqtt` refuse.

    from marram import Response

    async def fetch(request, env):
        return Response.json({"hello": request.query.get("name", "world")})
"""

import functools
import json
import string
import urllib.parse

from marram_engine import bodies, transport
from marram_engine.headers import Headers

__all__ = ["FetchError", "File", "Headers", "Request", "Response", "StateError", "fetch", "fetch_sync"]

# The standard's: Fetch §4.4.
REDIRECTS_MAX = 20
_PORTS = {"http": 80, "https": 443}


class FetchError(OSError):
    """A request that got no answer: refused by the platform, unreachable, or broken off."""


class StateError(Exception):
    """Something of the node's state was refused or failed. `kind` says what: `conflict`, `unauthorized`, `invalid`, ..."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


class _Content:
    """The readable side that requests and fetched responses share."""

    def text(self):
        return self.body.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.body)


class File(_Content):
    """A file that came with a form: `filename`, `content_type`, and its content as `body`, `text()` or `json()`."""

    def __init__(self, filename, content_type, body):
        self.filename, self.content_type, self.body = filename, content_type, body

    def __repr__(self):
        return f"File({self.filename!r}, {self.content_type!r}, {len(self.body)} bytes)"


class Request(_Content):
    """One HTTP request. The body is read when it is asked for: all at once with `body`, or with `await read()` while other
    tasks run; or in pieces with `stream()`, for `for` or `async for`."""

    def __init__(self, method, url, headers, chunks=()):
        self.method = method
        self.url = url
        self.headers = headers
        self._chunks = chunks
        self._parts = urllib.parse.urlsplit(url)

    @property
    def path(self):
        return urllib.parse.unquote(self._parts.path)

    @functools.cached_property
    def query(self):
        """The query's parameters; of one that repeats, the last."""
        return dict(urllib.parse.parse_qsl(self._parts.query, keep_blank_values=True))

    @functools.cached_property
    def cookies(self):
        return bodies.cookies("; ".join(self.headers.get_all("cookie")))

    @functools.cached_property
    def body(self):
        return b"".join(self._chunks)

    async def read(self):
        """Reads the body while other tasks run, and gives it. It is in `body` then."""
        if "body" not in self.__dict__:
            if not isinstance(self._chunks, transport.Incoming):
                return self.body
            self.body = await self._chunks.whole()
        return self.body

    def form(self):
        """The fields of a form: text, and a File for each that was uploaded; of a field that repeats, the last. Raises
        ValueError for what is no form."""
        parts = bodies.parts_of_form(self.headers.get("content-type"), self.body)
        return {
            name: content.decode("utf-8", "replace") if file is None else File(file, kind, content)
            for name, content, file, kind in parts
        }

    def stream(self):
        return iter(self._chunks)


class _Json:
    """`Response.json(value)` makes a response, and `response.json()` reads one, as in the Fetch standard."""

    def __get__(self, response, kind):
        if response is not None:
            return lambda: json.loads(response.body)

        def made(value, status=200, headers=()):
            response = kind(json.dumps(value, ensure_ascii=False).encode(), status, headers)
            if "content-type" not in response.headers:
                response.headers["content-type"] = "application/json"
            return response

        return made


class Response(_Content):
    """One HTTP response. The body is text, bytes, or an iterable (async or not) of either, which is streamed. `url` is
    where one that was fetched came from, after redirects."""

    def __init__(self, body=b"", status=200, headers=()):
        self.status = int(status)
        # A copy: whose headers they are may use them again.
        self.headers = Headers(headers)
        self.url = None
        if isinstance(body, str) and "content-type" not in self.headers:
            self.headers["content-type"] = "text/plain; charset=utf-8"
        self.body = bodies.answer(body)

    json = _Json()

    @classmethod
    def html(cls, text, status=200, headers=()):
        response = cls(text.encode(), status, headers)
        response.headers["content-type"] = "text/html; charset=utf-8"
        return response

    @classmethod
    def redirect(cls, location, status=302):
        return cls(b"", status, {"location": location})

    @property
    def ok(self):
        return 200 <= self.status < 300


def _public(url):
    """A URL without its fragment, which is not sent, and without user and password."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()


def _origin(url):
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname, _PORTS.get(parts.scheme) if parts.port is None else parts.port


class _Asking:
    """A request that is sent, and sent again where it is redirected to, until there is a response."""

    def __init__(self, url, method, headers, body, redirect):
        if redirect not in ("follow", "manual", "error"):
            raise ValueError(f"redirect is 'follow', 'manual' or 'error', not {redirect!r}")
        self._headers, self._redirect, self._redirected = Headers(headers), redirect, 0
        if isinstance(body, (dict, list)):
            body = json.dumps(body, ensure_ascii=False)
            if "content-type" not in self._headers:
                self._headers["content-type"] = "application/json"
        self._body = bodies.to_bytes(body, "a request's body is text, bytes, or a dict or list to be sent as JSON")
        self._url, self._method = url, method.upper()
        self._asked = f"{self._method} {url}"

    def request(self):
        return self._url, self._method, self._headers.items(), self._body

    def answered(self, status, headers, body):
        """The response, or None if the request has to be sent once more."""
        response = Response(body, status, headers)
        response.url = _public(self._url)
        location = response.headers.get("location")
        if self._redirect == "manual" or status not in (301, 302, 303, 307, 308) or location is None:
            return response
        if self._redirect == "error":
            raise transport.Failed(f"it redirects to {location}")
        if self._redirected == REDIRECTS_MAX:
            raise transport.Failed(f"it redirects more than {REDIRECTS_MAX} times")
        self._go(status, location)
        self._redirected += 1

    def _go(self, status, location):
        """Fetch §4.4 (HTTP-redirect fetch)."""
        # Bytes that no URL has are in UTF-8, most likely.
        location = urllib.parse.quote(location.encode("latin-1"), string.punctuation)
        try:
            target = urllib.parse.urljoin(self._url, location)
            elsewhere = _origin(target) != _origin(self._url)
        except ValueError:
            raise transport.Failed(f"it redirects to {location}, which is no URL") from None
        self._url = target
        dropped = []
        if status in (301, 302) and self._method == "POST" or status == 303 and self._method not in ("GET", "HEAD"):
            self._method, self._body = "GET", b""
            dropped += ["content-type", "content-length", "content-encoding", "content-language", "content-location"]
        if elsewhere:
            # What is for one server is not for another.
            dropped += ["authorization", "cookie", "host"]
        for name in dropped:
            del self._headers[name]

    def failed(self, failure):
        redirected = f", redirected to {_public(self._url)}" if self._redirected else ""
        return FetchError(f"{self._asked}{redirected}: {failure}")


async def fetch(url, method="GET", headers=(), body=None, timeout=None, redirect="follow"):
    """Sends a request and gives the Response; several at once with asyncio.gather. The manifest's `allow` must list it.
    Redirects are followed, or with "manual" answered as they come, or with "error" not taken."""
    asking, response = _Asking(url, method, headers, body, redirect), None
    try:
        while response is None:
            response = asking.answered(*await transport.exchange(*asking.request(), timeout))
    except transport.Failed as failure:
        raise asking.failed(failure) from None
    return response


def fetch_sync(url, method="GET", headers=(), body=None, timeout=None, redirect="follow"):
    """The same for programs that are not async."""
    asking, response = _Asking(url, method, headers, body, redirect), None
    try:
        while response is None:
            response = asking.answered(*transport.exchange_sync(*asking.request(), timeout))
    except transport.Failed as failure:
        raise asking.failed(failure) from None
    return response
