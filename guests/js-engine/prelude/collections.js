// Sets and maps in buckets of keys, which every node can change at any time and which become equal when nodes meet. A change
// settles once it is durable; several in one call are one write. Members and values are what `put` of a bucket takes, and come
// back as text (the default), json, bytes or arrayBuffer. Removing takes away what this node has seen.

function updateCollection(at, changes, parts) {
  return ask('crdt.update', { ...at, changes }, parts && joinBytes(parts));
}

// Bytes one after the other, taken apart by their lengths.
class Cutter {
  #bytes; #at = 0;
  constructor(bytes) { this.#bytes = bytes; }
  take(length, type) {
    const part = this.#bytes.slice(this.#at, this.#at + length);
    this.#at += length;
    return fromBytes(part, type);
  }
}

class KeySet {
  #at;
  constructor(bucket, key) { this.#at = { bucket, key }; }

  // Adds members; those that are there already are fine.
  async add(...members) { await this.#change('add', members); }

  // Removes members; those that are not there are fine.
  async remove(...members) { await this.#change('remove', members); }

  async contains(member) {
    return (await ask('crdt.contains', this.#at, toBytes(member)))[0].contains;
  }

  // Every member, in the order of their bytes; none if there is no set.
  async members(type) {
    const [head, bytes] = await ask('crdt.members', this.#at);
    const cutter = new Cutter(bytes);
    return head === null ? [] : head.members.map((length) => cutter.take(length, type));
  }

  async #change(op, members) {
    const parts = members.map(toBytes);
    await updateCollection(this.#at, parts.map(({ length }) => ({ op, length })), parts);
  }
}

// A field has any of a value, a counter and a set, each apart from the others.
class KeyMap {
  #at;
  constructor(bucket, key) { this.#at = { bucket, key }; }

  // The value of a field, or null.
  async get(field, type) { return (await this.field(field, type))?.value ?? null; }

  // { value, count, members } of a field, or null: null and empty is what nobody set, counted or added.
  async field(field, type) {
    const [found] = await this.#fields(asText(field), type);
    return found?.[1] ?? null;
  }

  // [name, { value, count, members }] of each field, in the order of their names.
  async entries(type) { return this.#fields(undefined, type); }

  // Sets the value of a field. Of two at the same time, all nodes read the same one.
  async set(field, value) {
    const bytes = toBytes(value);
    await updateCollection(this.#at, [{ op: 'field-put', field: asText(field), length: bytes.length }], [bytes]);
  }

  // Adds to the counter in a field.
  async increment(field, delta = 1) {
    if (!Number.isSafeInteger(delta)) throw new TypeError('a counter counts in whole numbers');
    await updateCollection(this.#at, [{ op: 'field-increment', field: asText(field), delta }]);
  }

  // Adds members to the set in a field.
  async add(field, ...members) { await this.#change('field-add', field, members); }

  // Removes members of the set in a field.
  async discard(field, ...members) { await this.#change('field-discard', field, members); }

  // Removes fields with all that is in them. One that another node changes meanwhile stays.
  async remove(...fields) {
    await updateCollection(this.#at, fields.map((field) => ({ op: 'field-remove', field: asText(field) })));
  }

  async #change(op, field, members) {
    const parts = members.map(toBytes);
    await updateCollection(this.#at, parts.map(({ length }) => ({ op, field: asText(field), length })), parts);
  }

  async #fields(field, type) {
    const [head, bytes] = await ask('crdt.fields', { ...this.#at, field });
    const cutter = new Cutter(bytes);
    return head === null ? [] : head.fields.map(({ name, value, count, members }) => [name, {
      value: value === null ? null : cutter.take(value, type), count, members: members.map((length) => cutter.take(length, type)),
    }]);
  }
}
