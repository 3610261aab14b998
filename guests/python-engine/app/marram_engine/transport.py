"""HTTP over wasi:http 0.2: reading what came in, sending what goes out, in plain Python values.

Children are always dropped before their parents (a stream before its body): the host insists on it.
"""

import urllib.parse

from componentize_py_types import Err, Ok
from wit_world.imports import outgoing_handler, types
from wit_world.imports.streams import StreamError_Closed

READ_BYTES_MAX = 64 * 1024
# Of the account of a failure; a line of the log has 16 KiB.
ACCOUNT_CHARS_MAX = 12 * 1024


class Failed(Exception):
    """Why there is no answer, in words."""


def _words(code):
    # ErrorCode_HttpRequestDenied → "http request denied"
    name = type(code).__name__.partition("_")[2] or str(code)
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
    detail = getattr(code, "value", None)
    return f"{words}: {detail}" if detail else words


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


def chunks(body):
    """The pieces of an incoming body as they come."""
    with body:
        with body.stream() as stream:
            while True:
                try:
                    yield stream.blocking_read(READ_BYTES_MAX)
                except Err as error:
                    if isinstance(error.value, StreamError_Closed):
                        return
                    raise EOFError("the sender broke off before the body's end") from None


class Pending:
    """A request that has been sent. `pollable` is ready when `take` can be called."""

    def __init__(self, future):
        self._future = future
        self.pollable = future.subscribe()

    def take(self):
        with self.pollable:
            pass
        with self._future as future:
            outcome = future.get().value
        if isinstance(outcome, Err):
            raise Failed(_words(outcome.value))
        with outcome.value as response:
            try:
                body = b"".join(chunks(response.consume()))
            except EOFError as broken:
                raise Failed(str(broken)) from None
            return response.status(), pairs(response.headers()), body


def send(url, method, headers, body, timeout):
    """Sends a request; raises Failed for what is refused at once."""
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
        future = outgoing_handler.handle(request, options)
        write_whole(outgoing, body)
    except Err as error:
        raise Failed(_words(error.value)) from None
    return Pending(future)


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
                    writable.block()
                continue
            stream.write(bytes(rest[:permitted]))
            rest = rest[permitted:]
        stream.flush()
    except Err as error:
        raise Closed from error


def finish(body, stream):
    """Ends a body after everything was written."""
    with stream:
        try:
            stream.blocking_flush()
        except Err:
            pass  # as for Closed
    end(body)


def end(body):
    try:
        types.OutgoingBody.finish(body, None)
    except Err:
        pass  # as for Closed: the reader knows best what it has got


def write_whole(body, data):
    """Writes `data` as the whole of a body."""
    if not data:
        return end(body)
    stream = body.write()
    try:
        write(stream, data)
    except Closed:
        pass
    finish(body, stream)


def start_response(out, status, headers):
    """Sends a response's head and gives its body to write."""
    fields = []
    for name, value in headers:
        fields.append((name.lower(), value.encode("latin-1", "replace")))
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
