"""What `env` offers of the node's state: `env.kv.<bucket>`, `env.blob.<bucket>`, `env.stream.<name>` and `env.mqtt`, each
where the manifest grants it. A call and its answer are a line of JSON, and the bytes that belong to it."""

import datetime
import functools
import json

from componentize_py_types import Err
from wit_world.imports import state

import marram


def _ask(capability, head, data=b""):
    try:
        answer = state.call(capability, json.dumps(head).encode() + b"\n" + data)
    except Err as error:
        raise marram.StateError(error.value.kind, error.value.message) from None
    line, _, rest = answer.partition(b"\n")
    return json.loads(line), rest


def _bytes(value):
    """Text, bytes, or anything that JSON takes."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    return json.dumps(value, ensure_ascii=False).encode()


class Bucket:
    """Keys of one bucket. What changes something returns once that is durable."""

    def __init__(self, name):
        self._name = name

    def get(self, key, default=None):
        """The value as text, or `default` if there is none."""
        value = self.get_bytes(key)
        return default if value is None else value.decode()

    def get_bytes(self, key):
        """The value, or None."""
        return self.get_with_version(key)[0]

    def get_json(self, key, default=None):
        """What the value is in JSON, or `default` if there is none."""
        value = self.get_bytes(key)
        return default if value is None else json.loads(value)

    def get_with_version(self, key):
        """The value and its version; two None if there is none."""
        head, value = _ask("kv.get", {"bucket": self._name, "key": key})
        return (None, None) if head is None else (value, head["version"])

    def put(self, key, value, ttl=None, **expected):
        """Sets a value: text, bytes, or what JSON takes. `ttl` is in seconds; `if_version` is a version that has to be there, or
        None for no entry. Returns the new version."""
        head = {"bucket": self._name, "key": key, **_expectation(**expected)}
        if ttl is not None:
            if ttl <= 0:
                raise ValueError("a time to live is more than 0 seconds")
            head["ttl_ms"] = max(1, round(ttl * 1000))
        return _ask("kv.put", head, _bytes(value))[0]["version"]

    def delete(self, key, **expected):
        """Removes an entry; that there is none is fine. `if_version` as with `put`."""
        _ask("kv.delete", {"bucket": self._name, "key": key, **_expectation(**expected)})

    def increment(self, key, delta=1):
        """Adds to a number, which begins at 0. Returns the sum."""
        return _ask("kv.increment", {"bucket": self._name, "key": key, "delta": delta})[0]["sum"]

    def keys(self, prefix=""):
        """Every key that begins with `prefix`, in order; asks page by page."""
        after = None
        while True:
            page, _ = _ask("kv.list", {"bucket": self._name, "prefix": prefix, "after": after})
            yield from page["keys"]
            if not page["more"]:
                return
            after = page["keys"][-1]


def _expectation(**expected):
    if not expected:
        return {}
    version = expected.pop("if_version")
    if expected:
        raise TypeError(f"unknown argument {next(iter(expected))!r}")
    return {"absent": True} if version is None else {"version": version}


class StoredObject:
    """What is said of an object: name, size, etag, content_type, metadata, modified. With its content where that was asked for."""

    def __init__(self, head, content=None):
        self.name, self.size, self.etag = head["name"], head["size"], head["etag"]
        self.content_type, self.metadata = head["contentType"], head["metadata"]
        self.modified = datetime.datetime.fromtimestamp(head["modified"] / 1000, datetime.timezone.utc)
        self.content = content

    def text(self):
        return self.content.decode()

    def json(self):
        return json.loads(self.content)


class Objects:
    """Objects of one bucket. What changes something returns once that is durable."""

    def __init__(self, name):
        self._name = name

    def get(self, name, offset=None, length=None):
        """The object with its content, or None. At most 16 MiB at once."""
        head, content = _ask("blob.get", {"bucket": self._name, "name": name, "offset": offset, "length": length})
        return None if head is None else StoredObject(head, content)

    def head(self, name):
        """What is said of the object, or None."""
        head, _ = _ask("blob.head", {"bucket": self._name, "name": name})
        return None if head is None else StoredObject(head)

    def put(self, name, value, content_type=None, metadata=None, **expected):
        """Stores an object: text, bytes, or what JSON takes. `if_etag` is an etag that has to be there, or None for no object.
        Returns what is said of it."""
        absent = "if_etag" in expected and expected["if_etag"] is None
        etag = expected.pop("if_etag", None)
        if expected:
            raise TypeError(f"unknown argument {next(iter(expected))!r}")
        implied = "text/plain" if isinstance(value, str) else None
        if not isinstance(value, (str, bytes, bytearray, memoryview)):
            implied = "application/json"
        head = {
            "bucket": self._name, "name": name, "contentType": content_type or implied,
            "metadata": [[key, str(value)] for key, value in (metadata or {}).items()], "etag": etag, "absent": absent,
        }
        return StoredObject(_ask("blob.put", head, _bytes(value))[0])

    def delete(self, *names):
        """Deletes objects; that there is none is fine."""
        _ask("blob.delete", {"bucket": self._name, "names": list(names)})

    def list(self, prefix=""):
        """Every object whose name begins with `prefix`, in order; asks page by page."""
        after = None
        while True:
            page, _ = _ask("blob.list", {"bucket": self._name, "prefix": prefix, "after": after})
            yield from map(StoredObject, page["objects"])
            after = page["after"]
            if after is None:
                return


class Stream:
    """A stream that events are published to."""

    def __init__(self, name):
        self._name = name

    def publish(self, data=None, **attributes):
        """Publishes an event; returns once it is durable, with its position. Attributes: type, subject, id, source, time,
        content_type, data_schema, extensions (a dict)."""
        return self.publish_batch([{**attributes, "data": data}])[0]

    def publish_batch(self, events):
        """Publishes events, dicts of `data` and attributes, in this order, all or none. Returns their positions."""
        heads, parts = [], []
        for event in events:
            event = dict(event)
            data, extensions = event.pop("data", None), event.pop("extensions", {})
            content, time_ = event.pop("content_type", None), event.pop("time", None)
            encoded = None if data is None else _bytes(data)
            implied = {str: "text/plain"}.get(type(data), "application/json")
            head = {
                "contentType": content or (None if isinstance(data, (bytes, bytearray, memoryview, type(None))) else implied),
                "dataSchema": event.pop("data_schema", None),
                "time": time_.isoformat() if isinstance(time_, datetime.datetime) else time_,
                "extensions": [[name, str(value)] for name, value in extensions.items()],
                "length": None if encoded is None else len(encoded),
            }
            for name in ("id", "source", "type", "subject"):
                head[name] = event.pop(name, None)
            if event:
                raise TypeError(f"an event has no attribute {next(iter(event))!r}: put it into `extensions`")
            heads.append(head)
            parts.append(encoded or b"")
        published, _ = _ask("stream.publish", {"stream": self._name, "events": heads}, b"".join(parts))
        return [one["position"] for one in published]


class Mqtt:
    """Topics that are published to."""

    def publish(self, topic, payload, qos=1, retain=False, expiry=None, content_type=None, response_topic=None,
                correlation_data=None, user_properties=()):
        """Publishes a message; returns once it is durable. `expiry` is in seconds."""
        data = _bytes(payload)
        pairs = user_properties.items() if hasattr(user_properties, "items") else user_properties
        head = {
            "topic": topic, "qos": qos, "retain": bool(retain), "expiry_s": expiry, "contentType": content_type,
            "responseTopic": response_topic, "user": [[name, value] for name, value in pairs], "length": len(data),
            "correlation": correlation_data is not None,
        }
        _ask("mqtt.publish", head, data if correlation_data is None else data + _bytes(correlation_data))


class Names:
    """What was granted of one kind: `names["x-y"]` or `names.x`."""

    def __init__(self, kind):
        self._kind, self._names = kind, {}

    def __getitem__(self, name):
        return self._names[name]

    def __getattr__(self, name):
        try:
            return self._names[name]
        except KeyError:
            raise AttributeError(f"{name!r} was not granted: add it to the function's `allow.{self._kind}`") from None

    def __iter__(self):
        return iter(self._names)

    def __len__(self):
        return len(self._names)


@functools.cache
def granted():
    """The attributes that `env` gets."""
    kinds = {"kv": Names("kv"), "blob": Names("blob"), "stream": Names("publish")}
    offers = {"kv": Bucket, "blob": Objects, "stream": Stream}
    found = {}
    for grant in state.granted():
        kind, _, name = grant.partition("/")
        if kind == "mqtt":
            found["mqtt"] = Mqtt()
        else:
            kinds[kind]._names[name] = offers[kind](name)
            found[kind] = kinds[kind]
    return found
