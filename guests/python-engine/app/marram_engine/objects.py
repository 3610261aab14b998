"""`env.blob.<bucket>`: objects, of any size. They come and go piece by piece, so that none has to fit into memory."""

import datetime
import functools
import json

from .calls import ask, to_bytes

# The most of an object that goes to the host in one call.
PIECE_BYTES = 1024 * 1024


class StoredObject:
    """What is said of an object: name, size, etag, content_type, metadata, modified. With its content where that was asked for:
    as a whole, or in `chunks`."""

    def __init__(self, head, bucket=None, piece=None):
        self.name, self.size, self.etag = head["name"], head["size"], head["etag"]
        self.content_type, self.metadata = head["contentType"], head["metadata"]
        self.modified = datetime.datetime.fromtimestamp(head["modified"] / 1000, datetime.timezone.utc)
        self._bucket, self._piece, self._range = bucket, piece, head.get("range")

    def chunks(self):
        """The content, piece by piece; can be asked for again. Raises a conflict where the object was replaced meanwhile."""
        if self._piece is None:
            return
        first, past = self._range
        if self._piece:
            yield self._piece
        at = first + len(self._piece)
        while at < past:
            asked = {"bucket": self._bucket, "name": self.name, "etag": self.etag, "offset": at, "length": past - at}
            _, piece = ask("blob.get", asked)
            at += len(piece)
            yield piece

    @functools.cached_property
    def content(self):
        """All of the content, or None where it was not asked for."""
        return None if self._piece is None else b"".join(self.chunks())

    def text(self):
        return self.content.decode()

    def json(self):
        return json.loads(self.content)


class Objects:
    """Objects of one bucket. What changes something returns once that is durable."""

    def __init__(self, name):
        self._name = name

    def get(self, name, offset=None, length=None):
        """The object with its content, or a part of that, or None."""
        head, piece = ask("blob.get", {"bucket": self._name, "name": name, "offset": offset, "length": length})
        return None if head is None else StoredObject(head, self._name, piece)

    def head(self, name):
        """What is said of the object, or None."""
        head, _ = ask("blob.head", {"bucket": self._name, "name": name})
        return None if head is None else StoredObject(head)

    def put(self, name, value, content_type=None, metadata=None, **expected):
        """Stores an object: text, bytes, an iterator of pieces of these, or what JSON takes. `if_etag` is an etag that has to be
        there, or None for no object. Returns what is said of it."""
        finish = {"absent": "if_etag" in expected and expected["if_etag"] is None, "etag": expected.pop("if_etag", None)}
        if expected:
            raise TypeError(f"unknown argument {next(iter(expected))!r}")
        pieces = hasattr(value, "__next__")
        implied = "text/plain" if isinstance(value, str) else None
        if not pieces and not isinstance(value, (str, bytes, bytearray, memoryview)):
            implied = "application/json"
        head = {
            "bucket": self._name, "name": name, "contentType": content_type or implied,
            "metadata": [[key, str(value)] for key, value in (metadata or {}).items()],
        }
        if pieces:
            return StoredObject(_send(head, finish, value))
        return StoredObject(ask("blob.put", {**head, **finish}, to_bytes(value))[0])

    def delete(self, *names):
        """Deletes objects; that there is none is fine."""
        ask("blob.delete", {"bucket": self._name, "names": list(names)})

    def list(self, prefix=""):
        """Every object whose name begins with `prefix`, in order; asks page by page."""
        after = None
        while True:
            page, _ = ask("blob.list", {"bucket": self._name, "prefix": prefix, "after": after})
            yield from map(StoredObject, page["objects"])
            after = page["after"]
            if after is None:
                return


def _send(head, finish, pieces):
    """Writes pieces, the next of which is asked for when the one before is on its way to the disk. An iterator that raises
    leaves nothing behind."""
    upload = ask("blob.begin", head)[0]
    try:
        for piece in pieces:
            if not isinstance(piece, (str, bytes, bytearray, memoryview)):
                raise TypeError(f"a piece of an object is text or bytes, and not {type(piece).__name__}")
            data = to_bytes(piece)
            for at in range(0, len(data), PIECE_BYTES):
                ask("blob.write", upload, data[at:at + PIECE_BYTES])
        return ask("blob.finish", {**upload, **finish})[0]
    except BaseException:
        ask("blob.abandon", upload)
        raise
