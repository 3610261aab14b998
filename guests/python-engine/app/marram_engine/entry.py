"""The component: takes a request from wasi:http, has the user's function answer it, and sends the answer."""

import inspect
import os
import sys

from componentize_py_types import Err
from wit_world.imports import types as http
from wit_world.exports.loader import Failure

import marram
from marram_engine import bodies, loading, loop, preload, state, transport, wsgi  # noqa: F401, preload for its imports
from marram_engine.steps import blocking, waiting


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

    body = transport.Incoming(incoming.consume())
    try:
        app = loading.module()
        request = _request(incoming, body)
        function = loading.handler(app)
        if function is not None:
            _serve(function, request, begin)
        else:
            wsgi.serve(loading.application(app), request, begin)
    except loading.LoadError as error:
        _fail(out, error.trace or f"{error.file}: {error.message}")
    except SystemExit:
        raise
    except BaseException as error:
        # A CancelledError is no Exception: that of a task which the function cancelled, and awaited.
        trace = loading.trace_of(error)
        if not sent:
            return _fail(out, trace)
        # What was begun must not look complete. An exception that left this would be written once more.
        print(trace, file=sys.stderr)
        _flush()
        os.abort()
    finally:
        # Whoever holds on to the request: half a body must not be left to the garbage collector, which knows no order.
        body.close()


def _request(incoming, body):
    scheme = "https" if isinstance(incoming.scheme(), http.Scheme_Https) else "http"
    headers = marram.Headers(transport.pairs(incoming.headers()))
    authority = incoming.authority() or headers.get("host", "localhost")
    url = f"{scheme}://{authority}{incoming.path_with_query() or '/'}"
    return marram.Request(transport.method_name(incoming.method()), url, headers, body)


def _serve(function, request, begin):
    """Has the user's function answer, async or not. An async body is sent while its loop runs."""
    answered = _called(function, request)
    if inspect.isawaitable(answered):
        answered = loop.run(_awaited(answered, function, request, begin))
        if answered is None:
            return
    else:
        answered = _checked(answered, function)
        if _is_async(answered):
            return loop.run(_send_async(answered, begin))
    _send(answered, request, begin)


def _called(function, request):
    """Calls the user's function with as many of (request, env) as it takes."""
    parameters = inspect.signature(function).parameters.values()
    takes = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    takes = 2 if any(p.kind == p.VAR_POSITIONAL for p in parameters) else takes
    return function(*(request, Env(os.environ))[:takes])


async def _awaited(awaitable, function, request, begin):
    """The response, or None if it has been sent."""
    response = _checked(await awaitable, function)
    if not _is_async(response):
        return response
    await _send_async(response, begin)


def _checked(response, function):
    if isinstance(response, (str, bytes)):
        return marram.Response(response)
    if not isinstance(response, marram.Response):
        raise TypeError(f"{function.__name__} returned {type(response).__name__}; return a marram.Response, text or bytes")
    return response


def _is_async(response):
    return hasattr(response.body, "__aiter__")


def _send(response, request, begin):
    headers = response.headers.items()
    if isinstance(response.body, bytes):
        if request.method != "HEAD" and response.status not in (204, 304) and "content-length" not in response.headers:
            headers.append(("content-length", str(len(response.body))))
        blocking(transport.write_whole(begin(response.status, headers), response.body))
        return
    body = begin(response.status, headers)
    stream = body.write()
    try:
        for piece in response.body:
            blocking(transport.write(stream, bodies.piece(piece)))
    except transport.Closed:
        pass
    # Not after another exception: the body would look complete.
    blocking(transport.finish(body, stream))


async def _send_async(response, begin):
    pieces = aiter(response.body)
    # Before the head goes out: what fails before it has anything to say is a failure, and no answer that breaks off.
    first = bodies.piece(await anext(pieces, b""))
    body = begin(response.status, response.headers.items())
    stream = body.write()
    try:
        await waiting(transport.write(stream, first))
        async for piece in pieces:
            await waiting(transport.write(stream, bodies.piece(piece)))
    except transport.Closed:
        pass
    await waiting(transport.finish(body, stream))


def _fail(out, trace):
    """Hands the account of a failure to the host, which logs it and answers in the function's place."""
    # What the function has printed comes before it.
    _flush()
    transport.fail(out, trace)


def _flush():
    sys.stdout.flush()
    sys.stderr.flush()
