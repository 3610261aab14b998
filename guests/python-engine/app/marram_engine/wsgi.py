"""WSGI (PEP 3333): any framework's application, or a plain callable, runs unchanged."""

import io
import sys
import urllib.parse

from marram_engine import transport
from marram_engine.steps import blocking


class _Input(io.RawIOBase):
    """The request's body as the file that WSGI asks for."""

    def __init__(self, chunks):
        self._chunks = iter(chunks)
        self._left = b""

    def readable(self):
        return True

    def readinto(self, buffer):
        while not self._left:
            try:
                self._left = next(self._chunks)
            except StopIteration:
                return 0
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size


def environ_of(request):
    """The environment of PEP 3333 for a request."""
    url = urllib.parse.urlsplit(request.url)
    environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": urllib.parse.unquote(url.path, "latin-1"),
        "QUERY_STRING": url.query,
        "SERVER_NAME": url.hostname or "localhost",
        "SERVER_PORT": str(url.port or (443 if url.scheme == "https" else 80)),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": url.netloc,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": url.scheme,
        "wsgi.input": io.BufferedReader(_Input(request.stream())),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in request.headers.items():
        # With "_" it would be taken for the field with "-", which says how long the body is, or who asks.
        if "_" in name:
            continue
        key = name.upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        if key != "HTTP_HOST":
            between = "; " if key == "HTTP_COOKIE" else ","
            environ[key] = f"{environ[key]}{between}{value}" if key in environ else value
    return environ


class _Answer:
    """What `start_response` was given; the head goes out with the first byte of the body, as PEP 3333 wants it."""

    def __init__(self, begin):
        self._begin = begin
        self._head = None
        self._body = None
        self._stream = None

    def start(self, status, headers, exc_info=None):
        if self._body is not None:
            if exc_info:
                raise exc_info[1].with_traceback(exc_info[2])
            raise AssertionError("start_response was called after the answer had begun")
        if self._head is not None and not exc_info:
            raise AssertionError("start_response was called twice")
        self._head = (int(status.split(" ", 1)[0]), headers)
        return self.write

    def _send_head(self):
        if self._body is None:
            if self._head is None:
                raise AssertionError("the application did not call start_response")
            self._body = self._begin(*self._head)
            self._stream = self._body.write()

    def write(self, data):
        if data:
            self._send_head()
            blocking(transport.write(self._stream, data))

    def finish(self):
        self._send_head()
        blocking(transport.finish(self._body, self._stream))


def serve(application, request, begin):
    """Calls `application` for one request; `begin(status, headers)` sends the head and gives the body."""
    answer, result = _Answer(begin), None
    try:
        result = application(environ_of(request), answer.start)
        for data in result:
            answer.write(data)
        answer.finish()
    except transport.Closed:
        # Nobody wants more of it. What was begun is let go of in order all the same.
        answer.finish()
    finally:
        close = getattr(result, "close", None)
        if close:
            close()
