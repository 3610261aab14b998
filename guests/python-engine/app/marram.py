"""What a Python function on Marram is given and gives back: Request, Response, Headers, fetch for requests of its own,
and StateError for what `env.kv`, `env.stream` and `env.mqtt` refuse.

    from marram import Response

    async def fetch(request, env):
        return Response.json({"hello": request.query.get("name", "world")})
"""

import asyncio
import functools
import http.cookies
import json
import urllib.parse
from collections.abc import Buffer

from marram_engine import transport

__all__ = ["FetchError", "Headers", "Request", "Response", "StateError", "fetch", "fetch_sync"]


class FetchError(OSError):
    """A request that got no answer: refused by the platform, unreachable, or broken off."""


class StateError(Exception):
    """Something of the node's state was refused or failed. `kind` says what: `conflict`, `unauthorized`, `invalid`, ..."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


class Headers:
    """Header fields in their order; names compare without regard to case, and may repeat."""

    def __init__(self, fields=()):
        pairs = fields.items() if hasattr(fields, "items") else fields
        self._pairs = [(str(name), str(value)) for name, value in pairs]

    def get(self, name, default=None):
        values = self.get_all(name)
        return ", ".join(values) if values else default

    def get_all(self, name):
        return [value for key, value in self._pairs if key.lower() == name.lower()]

    def append(self, name, value):
        self._pairs.append((str(name), str(value)))

    def items(self):
        return list(self._pairs)

    def keys(self):
        return [name for name, _ in self._pairs]

    def __getitem__(self, name):
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __setitem__(self, name, value):
        if name in self:
            del self[name]
        self.append(name, value)

    def __delitem__(self, name):
        self._pairs = [(key, value) for key, value in self._pairs if key.lower() != name.lower()]

    def __contains__(self, name):
        return any(key.lower() == name.lower() for key, _ in self._pairs)

    def __iter__(self):
        return iter(self.keys())

    def __len__(self):
        return len(self._pairs)

    def __repr__(self):
        return f"Headers({self._pairs!r})"


class _Content:
    """The readable side that requests and fetched responses share."""

    def text(self):
        return self.body.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.body)


class Request(_Content):
    """One HTTP request. The body is read when it is asked for, all at once with `body` or in pieces with `stream()`."""

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
        # One broken cookie must not take the others along, so each is read alone.
        found = {}
        for piece in self.headers.get("cookie", "").split(";"):
            try:
                found.update((name, morsel.value) for name, morsel in http.cookies.SimpleCookie(piece.strip()).items())
            except http.cookies.CookieError:
                continue
        return found

    @functools.cached_property
    def body(self):
        return b"".join(self._chunks)

    def form(self):
        """The fields of a form that was sent as `application/x-www-form-urlencoded`."""
        return dict(urllib.parse.parse_qsl(self.text(), keep_blank_values=True))

    def stream(self):
        return iter(self._chunks)


def _bytes(body, rule):
    """Text or bytes as bytes; nothing at all is an empty body. `bytes(5)` would be five zeros."""
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, Buffer):
        return bytes(body)
    raise TypeError(f"{rule}, not {type(body).__name__}: convert it with str(), or send it as JSON")


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
    """One HTTP response. The body is text, bytes, or an iterable (async or not) of either, which is streamed."""

    def __init__(self, body=b"", status=200, headers=()):
        self.status = int(status)
        self.headers = headers if isinstance(headers, Headers) else Headers(headers)
        if isinstance(body, str) and "content-type" not in self.headers:
            self.headers["content-type"] = "text/plain; charset=utf-8"
        streamed = not isinstance(body, (str, Buffer)) and (hasattr(body, "__iter__") or hasattr(body, "__aiter__"))
        self.body = body if streamed else _bytes(body, "a response's body is text, bytes, or an iterable of either")

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


def _outgoing(url, method, headers, body, timeout):
    if isinstance(body, (dict, list)):
        body = json.dumps(body, ensure_ascii=False)
        headers = Headers(headers)
        if "content-type" not in headers:
            headers["content-type"] = "application/json"
    body = _bytes(body, "a request's body is text, bytes, or a dict or list to be sent as JSON")
    try:
        return transport.send(url, method.upper(), Headers(headers).items(), body, timeout)
    except transport.Failed as failure:
        raise FetchError(f"{method.upper()} {url}: {failure}") from None


def _incoming(url, method, take):
    try:
        status, headers, body = take()
    except transport.Failed as failure:
        raise FetchError(f"{method.upper()} {url}: {failure}") from None
    return Response(body, status, Headers(headers))


async def fetch(url, method="GET", headers=(), body=None, timeout=None):
    """Sends a request and gives the Response; several at once with asyncio.gather. The manifest's `allow` must list it."""
    pending = _outgoing(url, method, headers, body, timeout)
    await asyncio.get_running_loop().wait(pending.pollable)
    return _incoming(url, method, pending.take)


def fetch_sync(url, method="GET", headers=(), body=None, timeout=None):
    """The same for programs that are not async."""
    pending = _outgoing(url, method, headers, body, timeout)
    pending.pollable.block()
    return _incoming(url, method, pending.take)
