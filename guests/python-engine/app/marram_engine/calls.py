"""Calls of the host: a line of JSON and the bytes that belong to it, and the same back."""

import json

from componentize_py_types import Err
from wit_world.imports import state

import marram


def ask(capability, head, data=b""):
    """Makes a call: what the answer says, and its bytes."""
    try:
        # A character for each byte: see the interface.
        answer = state.call(capability, json.dumps(head) + "\n" + data.decode("latin-1"))
    except Err as error:
        # The frame that raised it refers to it, and to all of the payload.
        error.with_traceback(None)
        raise marram.StateError(error.value.kind, error.value.message) from None
    line, _, rest = answer.partition(b"\n")
    return json.loads(line), rest


def to_bytes(value):
    """Text, bytes, or anything that JSON takes."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    return json.dumps(value, ensure_ascii=False).encode()


def from_bytes(data, kind):
    """The other way: as `text`, `json` or `bytes`."""
    match kind:
        case "text":
            return data.decode()
        case "json":
            return json.loads(data)
        case "bytes":
            return data
    raise ValueError(f"{kind!r} is not a kind of value: use text, json or bytes")
