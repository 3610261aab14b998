// What was granted becomes a part of `env`.

const OFFERS = { kv: KeyBucket, blob: ObjectBucket, stream: EventStream };
for (const cls of [KeyBucket, KeySet, KeyMap, ObjectBucket, StoredObject, EventStream, MqttTopics]) {
  Object.defineProperty(cls.prototype, Symbol.toStringTag, { value: cls.name, configurable: true });
  if (cls !== StoredObject) opaque.add(cls.prototype);
}

// Puts what was granted on `env`; each is `<kind>/<name>`.
function bindState(environment, granted) {
  const kinds = {};
  for (const grant of granted) {
    const at = grant.indexOf('/');
    const kind = grant.slice(0, at), name = grant.slice(at + 1);
    if (kind === 'mqtt') environment.mqtt = new MqttTopics();
    else (kinds[kind] ??= {})[name] = new OFFERS[kind](name);
  }
  for (const [kind, names] of Object.entries(kinds)) environment[kind] = Object.freeze(names);
}
