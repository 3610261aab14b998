"""What `env` offers of the node's state: `env.kv.<bucket>`, `env.stream.<name>` and `env.mqtt` here, sets and maps in
`crdt.py`, `env.blob.<bucket>` in `objects.py`; each where the manifest grants it."""

import datetime
import functools
import json

from wit_world.imports import state

from .calls import ask, to_bytes
from .crdt import KeyMap, KeySet
from .objects import Objects


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
        head, value = ask("kv.get", {"bucket": self._name, "key": key})
        return (None, None) if head is None else (value, head["version"])

    def put(self, key, value, ttl=None, **expected):
        """Sets a value: text, bytes, or what JSON takes. `ttl` is in seconds; `if_version` is a version that has to be there, or
        None for no entry. Returns the new version."""
        head = {"bucket": self._name, "key": key, **_expectation(**expected)}
        if ttl is not None:
            if ttl <= 0:
                raise ValueError("a time to live is more than 0 seconds")
            head["ttl_ms"] = max(1, round(ttl * 1000))
        return ask("kv.put", head, to_bytes(value))[0]["version"]

    def delete(self, key, **expected):
        """Removes an entry; that there is none is fine. `if_version` as with `put`."""
        ask("kv.delete", {"bucket": self._name, "key": key, **_expectation(**expected)})

    def increment(self, key, delta=1):
        """Adds to a number, which begins at 0. Returns the sum."""
        return ask("kv.increment", {"bucket": self._name, "key": key, "delta": delta})[0]["sum"]

    def set_at(self, key):
        """The set at a key, whether it is there or not. A key holds one kind of thing at a time."""
        return KeySet(self._name, key)

    def map_at(self, key):
        """The map at a key, as with `set_at`."""
        return KeyMap(self._name, key)

    def keys(self, prefix=""):
        """Every key that begins with `prefix`, in order; asks page by page."""
        after = None
        while True:
            page, _ = ask("kv.list", {"bucket": self._name, "prefix": prefix, "after": after})
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
            encoded = None if data is None else to_bytes(data)
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
        published, _ = ask("stream.publish", {"stream": self._name, "events": heads}, b"".join(parts))
        return [one["position"] for one in published]


class Mqtt:
    """Topics that are published to."""

    def publish(self, topic, payload, qos=1, retain=False, expiry=None, content_type=None, response_topic=None,
                correlation_data=None, user_properties=()):
        """Publishes a message; returns once it is durable. `expiry` is in seconds."""
        data = to_bytes(payload)
        pairs = user_properties.items() if hasattr(user_properties, "items") else user_properties
        head = {
            "topic": topic, "qos": qos, "retain": bool(retain), "expiry_s": expiry, "contentType": content_type,
            "responseTopic": response_topic, "user": [[name, value] for name, value in pairs], "length": len(data),
            "correlation": correlation_data is not None,
        }
        ask("mqtt.publish", head, data if correlation_data is None else data + to_bytes(correlation_data))


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
