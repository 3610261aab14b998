"""Header fields."""


class Headers:
    """Header fields in their order; names compare without regard to case, and may repeat."""

    def __init__(self, fields=()):
        pairs = fields.items() if hasattr(fields, "items") else fields
        self._pairs = [(str(name), str(value)) for name, value in pairs]

    def get(self, name, default=None):
        values = self.get_all(name)
        return ", ".join(values) if values else default

    def get_all(self, name):
        return [value for key, value in self._pairs if key.lower() == name.lower()]

    def append(self, name, value):
        self._pairs.append((str(name), str(value)))

    def items(self):
        return list(self._pairs)

    def keys(self):
        return [name for name, _ in self._pairs]

    def __getitem__(self, name):
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __setitem__(self, name, value):
        if name in self:
            del self[name]
        self.append(name, value)

    def __delitem__(self, name):
        self._pairs = [(key, value) for key, value in self._pairs if key.lower() != name.lower()]

    def __contains__(self, name):
        return any(key.lower() == name.lower() for key, _ in self._pairs)

    def __iter__(self):
        return iter(self.keys())

    def __len__(self):
        return len(self._pairs)

    def __repr__(self):
        return f"Headers({self._pairs!r})"
