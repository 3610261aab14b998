"""Sets and maps in buckets of keys, which every node can change at any time and which become equal when nodes meet. A change
returns once it is durable; several in one call are one write. Members and values are what `put` of a bucket takes, and come
back as "text" (the default), "json" or "bytes". Removing takes away what this node has seen."""

import typing

from .calls import ask, from_bytes, to_bytes


class Field(typing.NamedTuple):
    """A field of a map: any of a value, a counter and a set. None and empty is what nobody set, counted or added."""

    value: typing.Any
    count: int | None
    members: list


class _Cutter:
    """Bytes one after the other, taken apart by their lengths."""

    def __init__(self, data, kind):
        self._data, self._kind, self._at = data, kind, 0

    def take(self, length):
        part = self._data[self._at:self._at + length]
        self._at += length
        return from_bytes(part, self._kind)

    def take_all(self, lengths):
        return [self.take(length) for length in lengths]


class _Collection:
    def __init__(self, bucket, key):
        self._at = {"bucket": bucket, "key": key}

    def _update(self, changes, parts=()):
        ask("crdt.update", {**self._at, "changes": changes}, b"".join(parts))

    def _change(self, op, members, **field):
        parts = [to_bytes(member) for member in members]
        self._update([{"op": op, **field, "length": len(part)} for part in parts], parts)


class KeySet(_Collection):
    """The set at a key."""

    def add(self, *members):
        """Adds members; those that are there already are fine."""
        self._change("add", members)

    def remove(self, *members):
        """Removes members; those that are not there are fine."""
        self._change("remove", members)

    def contains(self, member):
        """Whether it is in the set."""
        return ask("crdt.contains", self._at, to_bytes(member))[0]["contains"]

    def members(self, kind="text"):
        """Every member, in the order of their bytes; none if there is no set."""
        head, data = ask("crdt.members", self._at)
        return [] if head is None else _Cutter(data, kind).take_all(head["members"])


class KeyMap(_Collection):
    """The map at a key. A field has any of a value, a counter and a set, each apart from the others."""

    def get(self, field, default=None, kind="text"):
        """The value of a field, or `default` if it has none."""
        found = self.field(field, kind)
        return default if found is None or found.value is None else found.value

    def field(self, field, kind="text"):
        """All that is in a field, or None."""
        found = self._fields(kind, field=field)
        return found[0][1] if found else None

    def entries(self, kind="text"):
        """Name and `Field` of each field, in the order of their names."""
        return self._fields(kind)

    def set(self, field, value):
        """Sets the value of a field. Of two at the same time, all nodes read the same one."""
        data = to_bytes(value)
        self._update([{"op": "field-put", "field": field, "length": len(data)}], [data])

    def increment(self, field, delta=1):
        """Adds to the counter in a field."""
        self._update([{"op": "field-increment", "field": field, "delta": delta}])

    def add(self, field, *members):
        """Adds members to the set in a field."""
        self._change("field-add", members, field=field)

    def discard(self, field, *members):
        """Removes members of the set in a field."""
        self._change("field-discard", members, field=field)

    def remove(self, *fields):
        """Removes fields with all that is in them. One that another node changes meanwhile stays."""
        self._update([{"op": "field-remove", "field": field} for field in fields])

    def _fields(self, kind, **asked):
        head, data = ask("crdt.fields", {**self._at, **asked})
        if head is None:
            return []
        cutter = _Cutter(data, kind)
        # The value's bytes come before the members'.
        return [
            (one["name"], Field(
                value=None if one["value"] is None else cutter.take(one["value"]),
                count=one["count"],
                members=cutter.take_all(one["members"]),
            ))
            for one in head["fields"]
        ]
