"""The component: takes a request from wasi:http, has the user's function answer it, and sends the answer."""

import inspect
import os
import sys

from componentize_py_types import Err
from wit_world.imports import types as http
from wit_world.exports.loader import Failure

import marram
from marram_engine import loading, loop, preload, state, transport, wsgi  # noqa: F401, preload is there for its imports


class Loader:
    """marram:engine/loader"""

    def load(self):
        try:
            loading.module()
        except loading.LoadError as error:
            raise Err(Failure(error.message, error.file, error.line, error.column, error.trace)) from None


class IncomingHandler:
    """wasi:http/incoming-handler"""

    def handle(self, incoming, out):
        try:
            _answer(incoming, out)
        finally:
            _flush()


class Env(dict):
    """The function's configuration and environment: `env["currency"]`, `env.get("currency")` or `env.currency`. What the manifest
    grants of the node's state is in the attributes `kv`, `blob`, `stream` and `mqtt`."""

    def __init__(self, environment):
        super().__init__(environment)
        self.__dict__.update(state.granted())

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            where = "`allow`" if name in ("kv", "blob", "stream", "mqtt") else "`config`"
            raise AttributeError(f"no {name!r} in the function's env: add it under {where} in marram.toml") from None


def _answer(incoming, out):
    # The outparam is used up when it is set: after that, a failure can only break the answer off.
    sent = False

    def begin(status, headers):
        nonlocal sent
        body = transport.start_response(out, status, headers)
        sent = True
        return body

    try:
        app = loading.module()
        request = _request(incoming)
        function = loading.handler(app)
        if function is not None:
            _send(_called(function, request), request, begin)
        else:
            wsgi.serve(loading.application(app), request, begin)
    except loading.LoadError as error:
        _fail(out, error.trace or f"{error.file}: {error.message}")
    except Exception as error:
        trace = loading.trace_of(error)
        if not sent:
            return _fail(out, trace)
        # What was begun must not look complete. An exception that left this would be written once more.
        print(trace, file=sys.stderr)
        _flush()
        os.abort()


def _request(incoming):
    scheme = "https" if isinstance(incoming.scheme(), http.Scheme_Https) else "http"
    headers = marram.Headers(transport.pairs(incoming.headers()))
    authority = incoming.authority() or headers.get("host", "localhost")
    url = f"{scheme}://{authority}{incoming.path_with_query() or '/'}"
    return marram.Request(transport.method_name(incoming.method()), url, headers, transport.chunks(incoming.consume()))


def _called(function, request):
    """Calls the user's function with as many of (request, env) as it takes, async or not."""
    parameters = inspect.signature(function).parameters.values()
    takes = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    takes = 2 if any(p.kind == p.VAR_POSITIONAL for p in parameters) else takes
    response = function(*(request, Env(os.environ))[:takes])
    if inspect.isawaitable(response):
        response = loop.run(_awaited(response))
    if isinstance(response, (str, bytes)):
        response = marram.Response(response)
    if not isinstance(response, marram.Response):
        raise TypeError(f"{function.__name__} returned {type(response).__name__}; return a marram.Response, text or bytes")
    return response


async def _awaited(awaitable):
    response = await awaitable
    # An async body is read here, where its loop runs.
    if isinstance(response, marram.Response) and hasattr(response.body, "__aiter__"):
        response.body = [piece async for piece in response.body]
    return response


def _send(response, request, begin):
    headers = response.headers.items()
    if isinstance(response.body, bytes):
        if request.method != "HEAD" and response.status not in (204, 304) and "content-length" not in response.headers:
            headers.append(("content-length", str(len(response.body))))
        transport.write_whole(begin(response.status, headers), response.body)
        return
    body = begin(response.status, headers)
    stream = body.write()
    try:
        for piece in response.body:
            transport.write(stream, piece.encode() if isinstance(piece, str) else piece)
    except transport.Closed:
        pass
    # Not after another exception: the body would look complete.
    transport.finish(body, stream)


def _fail(out, trace):
    """Hands the account of a failure to the host, which logs it and answers in the function's place."""
    # What the function has printed comes before it.
    _flush()
    transport.fail(out, trace)


def _flush():
    sys.stdout.flush()
    sys.stderr.flush()
