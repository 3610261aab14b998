"""HTTP over wasi:http 0.2: reading what came in, sending what goes out, in plain Python values.

Children are always dropped before their parents (a stream before its body): the host insists on it. What waits is a
generator of pollables, see steps.py.
"""

import asyncio
import collections
import contextlib
import urllib.parse

from componentize_py_types import Err, Ok
from wit_world.imports import outgoing_handler, types
from wit_world.imports.streams import StreamError_Closed

from .steps import blocking, waiting

READ_BYTES_MAX = 64 * 1024
ACCOUNT_CHARS_MAX = 12 * 1024  # of the account of a failure; a line of the log has 16 KiB


class Failed(Exception):
    """Why there is no answer, in words."""


def _words(code):
    # ErrorCode_HttpRequestDenied → "http request denied"
    name = type(code).__name__.partition("_")[2] or str(code)
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
    detail = getattr(code, "value", None)
    return f"{words}: {detail}" if detail else words


def _value(error):
    """What an Err says. Its traceback goes: the frame that raised it refers to it, and would stay, with a whole body in the
    frames above, until the garbage collector comes by."""
    error.with_traceback(None)
    return error.value


_METHODS = {name.partition("_")[2].upper(): kind for name, kind in vars(types).items() if name.startswith("Method_")}


def method_name(method):
    if isinstance(method, types.Method_Other):
        return method.value
    return type(method).__name__.partition("_")[2].upper()


def method_value(name):
    kind = _METHODS.get(name)
    return kind() if kind and name != "OTHER" else types.Method_Other(name)


def pairs(fields):
    with fields:
        return [(name, value.decode("latin-1")) for name, value in fields.entries()]


def _pieces(body):
    """The pieces of an incoming body as they come, and between them the pollables to wait for."""
    with body, body.stream() as stream:
        while True:
            try:
                piece = stream.read(READ_BYTES_MAX)
            except Err as error:
                if isinstance(_value(error), StreamError_Closed):
                    return
                raise EOFError("the sender broke off before the body's end") from None
            if piece:
                yield piece
            else:
                with stream.subscribe() as readable:
                    yield readable


class Incoming:
    """The body of a request that came in: its pieces, for `for` and for `async for`."""

    def __init__(self, body):
        self._steps = _pieces(body)
        self._awaited = False
        self._returned = collections.deque()
        self._ended = None  # or what is raised, and what that says

    def __iter__(self):
        return self

    def __next__(self):
        while not isinstance(step := self._next(StopIteration), bytes):
            step.block()
        return step

    def __aiter__(self):
        return self

    async def __anext__(self):
        while not isinstance(step := self._next(StopAsyncIteration), bytes):
            self._awaited = True
            try:
                await asyncio.get_running_loop().wait(step)
            finally:
                self._awaited = False
        return step

    def _next(self, end):
        # The next step would drop the pollable that the other task waits for.
        if self._awaited:
            raise RuntimeError("another task is reading this body")
        if self._ended:
            raise self._ended[0](self._ended[1])
        if self._returned:
            return self._returned.popleft()
        try:
            for step in self._steps:
                return step
        except EOFError as broken:
            # Asked again, half a body must not look complete.
            self._ended = EOFError, str(broken)
            raise
        raise end

    async def whole(self):
        """All pieces. A reader that gives up leaves them to the next one."""
        read = []
        try:
            async for piece in self:
                read.append(piece)
        except BaseException:
            self._returned.extend(read)
            raise
        return b"".join(read)

    def close(self):
        self._steps.close()
        self._ended = RuntimeError, "the request is over, and its body can no longer be read"


def _receive(future):
    with future:
        with future.subscribe() as answered:
            yield answered
        outcome = future.get().value
    if isinstance(outcome, Err):
        raise Failed(_words(outcome.value))
    with outcome.value as response:
        status, headers, body = response.status(), pairs(response.headers()), []
        with contextlib.closing(_pieces(response.consume())) as pieces:
            try:
                for step in pieces:
                    if isinstance(step, bytes):
                        body.append(step)
                    else:
                        yield step
            except EOFError as broken:
                raise Failed(str(broken)) from None
        return status, headers, b"".join(body)


async def exchange(url, method, headers, body, timeout):
    """Sends a request: status, headers and body of what is answered. Raises Failed."""
    future, outgoing = _send(url, method, headers, timeout)
    # At the same time: a server can answer while it still reads. And one that is not sent all would wait for it.
    tasks = [asyncio.create_task(waiting(steps)) for steps in (_receive(future), write_whole(outgoing, body))]
    try:
        answer, _ = await asyncio.gather(*tasks)
        return answer
    finally:
        for task in tasks:
            task.cancel()
        # A task refers to its exception, and that to this frame.
        del tasks, task


def exchange_sync(url, method, headers, body, timeout):
    """The same, one after the other."""
    future, outgoing = _send(url, method, headers, timeout)
    blocking(write_whole(outgoing, body))
    return blocking(_receive(future))


def _send(url, method, headers, timeout):
    """Sends a request's head: what its answer comes from, and its body to write. Raises Failed if it is refused at once."""
    target = urllib.parse.urlsplit(url)
    if target.scheme not in ("http", "https") or not target.netloc:
        raise Failed("the URL must start with http:// or https:// and name a host")
    try:
        fields = types.Fields.from_list([(name.lower(), value.encode("latin-1")) for name, value in headers])
        request = types.OutgoingRequest(fields)
        request.set_method(method_value(method))
        request.set_scheme(types.Scheme_Https() if target.scheme == "https" else types.Scheme_Http())
        request.set_authority(target.netloc.rpartition("@")[2])
        request.set_path_with_query((target.path or "/") + (f"?{target.query}" if target.query else ""))
    except (Err, UnicodeEncodeError):
        raise Failed("the method, the URL or a header has characters that HTTP does not allow") from None
    options = None
    if timeout is not None:
        options = types.RequestOptions()
        for set_timeout in (options.set_connect_timeout, options.set_first_byte_timeout, options.set_between_bytes_timeout):
            set_timeout(int(timeout * 1e9))
    outgoing = request.body()
    try:
        return outgoing_handler.handle(request, options), outgoing
    except Err as error:
        raise Failed(_words(_value(error))) from None


class Closed(Exception):
    """The reader of a body is gone, or has all it was promised; what is left to write is of no use to anybody."""


def write(stream, data):
    """Writes all of `data`; waits while the reader is slow. Raises Closed."""
    rest = memoryview(data)
    try:
        while rest:
            permitted = stream.check_write()
            if permitted == 0:
                with stream.subscribe() as writable:
                    yield writable
                continue
            stream.write(bytes(rest[:permitted]))
            rest = rest[permitted:]
        stream.flush()
    except Err as error:
        _value(error)
        raise Closed from None


def _flushed(stream):
    try:
        while stream.check_write() == 0:
            with stream.subscribe() as writable:
                yield writable
    except Err:
        pass  # as for Closed


def finish(body, stream):
    """Ends a body after everything was written."""
    with stream:
        yield from _flushed(stream)
    _end(body)


def _end(body):
    try:
        types.OutgoingBody.finish(body, None)
    except Err:
        pass  # as for Closed: the reader knows best what it has got


def write_whole(body, data):
    """Writes `data` as the whole of a body."""
    if not data:
        return _end(body)
    try:
        with body.write() as stream:
            try:
                yield from write(stream, data)
                yield from _flushed(stream)
            except Closed:
                pass
    except BaseException:
        # Given up or failed: it must not look complete.
        with body:
            raise
    _end(body)


def start_response(out, status, headers):
    """Sends a response's head and gives its body to write."""
    fields = []
    for name, value in headers:
        try:
            fields.append((name.lower(), value.encode("latin-1")))
        except UnicodeEncodeError as error:
            character = value[error.start]
            account = f"header {name!r} has {character!r}, which HTTP does not allow: encode it, as urllib.parse.quote does"
            raise ValueError(account) from None
    try:
        response = types.OutgoingResponse(types.Fields.from_list(fields))
        response.set_status_code(status)
    except Err:
        raise ValueError(f"status {status} or one of the headers {[name for name, _ in headers]} is not valid HTTP") from None
    body = response.body()
    types.ResponseOutparam.set(out, Ok(response))
    return body


def fail(out, account):
    """Answers that the function has failed. The host takes no other error of the engine for that."""
    account = account.strip()
    if len(account) > ACCOUNT_CHARS_MAX:
        # The end says what it was.
        half = ACCOUNT_CHARS_MAX // 2
        account = f"{account[:half]}\n  ... (cut)\n{account[-half:]}"
    # A message can have halves of surrogates, which no text of the host's can.
    account = account.encode("utf-8", "backslashreplace").decode()
    types.ResponseOutparam.set(out, Err(types.ErrorCode_InternalError(account)))
