// What `env` offers of the node's state: `env.kv.<bucket>`, `env.stream.<name>` and `env.mqtt` here, sets and maps in
// collections.js, `env.blob.<bucket>` in objects.js. A call and its answer are a line of JSON, and the bytes that belong to it.

async function ask(capability, head, bytes) {
  const line = host.encode(JSON.stringify(head) + '\n');
  const answer = await callHost(capability, bytes ? joinBytes([line, bytes]) : line);
  const end = answer.indexOf(10);
  return [JSON.parse(host.decode(answer.subarray(0, end), false, true)), answer.slice(end + 1)];
}

const VALUES = 'give a string, bytes, a Blob, or what JSON takes';
function toBytes(value) { return valueBytes(value, 'give await it.bytes()'); }

// `content` says what to give instead of something that is read.
function valueBytes(value, content) {
  if (typeof value === 'string') return host.encode(value);
  if (isBufferSource(value)) return asBytes(value);
  if (value instanceof Blob) return blobBytes(value);
  if (value instanceof StoredObject && hasContent(value)) {
    throw new TypeError(`a StoredObject is not a value: ${content}, or { ...it } for what is said of it`);
  }
  // JSON would have the insides of these.
  if (STREAMS.some((cls) => value instanceof cls)) refuse(value, content);
  const text = JSON.stringify(value);
  if (text === undefined) throw new TypeError(`${inspect(value, DEPTH_MAX)} is not a value: ${VALUES}`);
  if (text === '{}' && typeof value.toJSON !== 'function') refuse(value, content);
  return host.encode(text);
}

const STREAMS = [ReadableStream, WritableStream, TransformStream];
// Where JSON makes {} of what is more than that, nobody would notice.
function refuse(value, content) {
  const prototype = Object.getPrototypeOf(value);
  if (prototype === Object.prototype || prototype === null) return;
  const pairs = 'give [...it] or Object.fromEntries(it)';
  const known = [
    [Promise, 'await it first'], [Body, content], [Map, pairs], [Headers, pairs], [FormData, 'give its fields one by one'],
    [ReadableStream, 'only put of env.blob takes one; for the rest, give await new Response(it).bytes()'],
    [Set, 'give [...it]'], [URLSearchParams, 'give String(it)'], [Error, 'give its message'], [RegExp, 'give its source'],
  ];
  const [cls, instead = VALUES] = known.find(([cls]) => value instanceof cls) ?? [];
  const name = opaqueName(value) ?? cls?.name;
  if (name) throw new TypeError(`${articled(name)} is not a value: ${instead}`);
}

function fromBytes(bytes, type) {
  switch (type) {
    case undefined: case 'text': return host.decode(bytes, false, true);
    case 'json': return JSON.parse(host.decode(bytes, false, true));
    case 'bytes': return bytes;
    case 'arrayBuffer': return bytes.buffer;
    default: throw new TypeError(`${asText(type)} is not a type of value; use text, json, bytes or arrayBuffer`);
  }
}

function typeOf(options) {
  if (typeof options !== 'object') return unlessIndex(options);
  // The second says how long Workers may answer from a cache; here there is none.
  return optionsOf(options, 'get of env.kv', ['type', 'cacheTtl']).type;
}

// The options of a call. A misspelt one is an error: what it asks for would not be done. `also` are taken without being told
// of, and so is what such a call has answered, where all of `answer` is there.
function optionsOf(options, call, known, also = [], answer = []) {
  if (options === undefined || options === null) return {};
  if (typeof options !== 'object') throw new TypeError(`the options of ${call} are an object, not ${inspect(options, 1)}`);
  const answered = answer.every((name) => name in options);
  for (const name of Object.keys(options)) {
    if (options[name] === undefined || known.includes(name) || also.includes(name)) continue;
    if (answered && answer.includes(name)) continue;
    throw new TypeError(`${call} has no option ${name}; it has ${known.join(', ')}`);
  }
  return options;
}

// The second argument of a call that `map` makes is an index.
function unlessIndex(argument) { return typeof argument === 'number' ? undefined : argument; }

// The name of a key or an object. No name at all would be "undefined", and several would be one.
function nameText(name) {
  if (name !== undefined && name !== null && !Array.isArray(name)) return asText(name);
  throw new TypeError(`a name is text, not ${inspect(name, 1)}`);
}

class KeyBucket {
  #bucket;
  constructor(bucket) { this.#bucket = bucket; }

  // The value, or null. The type is text (the default), json, bytes or arrayBuffer.
  async get(key, options) {
    return (await this.getWithVersion(key, options)).value;
  }

  // { value, version, expiration }: null where there is none. The expiration is in seconds since the Unix epoch.
  async getWithVersion(key, options) {
    const type = typeOf(options);
    const [head, bytes] = await ask('kv.get', { bucket: this.#bucket, key: nameText(key) });
    if (head === null) return { value: null, version: null, expiration: null };
    return { value: fromBytes(bytes, type), version: head.version, expiration: head.expiration };
  }

  // Sets the value; settles once that is durable, with its version. Options: expirationTtl (seconds), expiration (seconds since
  // the Unix epoch), ifVersion (a version, or null for no entry).
  async put(key, value, options) {
    const known = ['expirationTtl', 'expiration', 'ifVersion'];
    // unstorage's driver for Workers gives its own name of the first as well, where 0 is for ever.
    const { ttl, ...rest } = optionsOf(options, 'put of env.kv', known, ['ttl']);
    const { expirationTtl = ttl || undefined, expiration, ifVersion } = rest;
    const ttlMs = expirationTtl !== undefined ? Math.ceil(Number(expirationTtl) * 1000)
      : expiration !== undefined ? Math.ceil(Number(expiration) * 1000 - host.now()) : undefined;
    if (ttlMs !== undefined && !(ttlMs > 0)) throw new RangeError('the expiration is not in the future');
    const head = { bucket: this.#bucket, key: nameText(key), ttl_ms: ttlMs, ...expectation(ifVersion) };
    return (await ask('kv.put', head, toBytes(value)))[0].version;
  }

  // Removes the entry; settles once that is durable. Options: ifVersion.
  async delete(key, options) {
    const { ifVersion } = optionsOf(unlessIndex(options), 'delete of env.kv', ['ifVersion']);
    await ask('kv.delete', { bucket: this.#bucket, key: nameText(key), ...expectation(ifVersion) });
  }

  // Adds to a number, which begins at 0; settles once that is durable, with the sum.
  async increment(key, delta = 1) {
    if (!Number.isSafeInteger(delta)) throw new TypeError('a counter counts in whole numbers');
    return (await ask('kv.increment', { bucket: this.#bucket, key: nameText(key), delta }))[0].sum;
  }

  // The set or the map at a key, whether it is there or not. A key holds one kind of thing at a time.
  setAt(key) { return new KeySet(this.#bucket, nameText(key)); }
  mapAt(key) { return new KeyMap(this.#bucket, nameText(key)); }

  // { keys: [{ name }], list_complete, cursor }. Options: prefix, limit, cursor.
  async list(options) {
    const known = ['prefix', 'limit', 'cursor'];
    const { prefix = '', limit, cursor } = optionsOf(options, 'list of env.kv', known, [], ['keys', 'list_complete']);
    const head = { bucket: this.#bucket, prefix: asText(prefix), limit, after: cursor };
    const [{ keys, more }] = await ask('kv.list', head);
    const listed = { keys: keys.map((name) => ({ name })), list_complete: !more };
    if (more) listed.cursor = keys.at(-1);
    return listed;
  }
}

function expectation(ifVersion) {
  if (ifVersion === undefined) return {};
  return ifVersion === null ? { absent: true } : { version: asText(ifVersion) };
}

const ATTRIBUTES = ['type', 'subject', 'id', 'source', 'time', 'contentType', 'dataSchema', 'extensions'];

class EventStream {
  #stream;
  constructor(stream) { this.#stream = stream; }

  // Publishes an event; settles once it is durable, with { position, duplicate }. Options are the attributes of a CloudEvent:
  // type, subject, id, source, time, contentType, dataSchema, extensions.
  async publish(data, options) {
    return (await this.publishBatch([{ ...optionsOf(unlessIndex(options), 'publish of env.stream', ATTRIBUTES), data }]))[0];
  }

  // Publishes events in this order, all or none. They may also be as a batch comes to a function.
  async publishBatch(events) {
    const parts = [];
    const heads = Array.from(events, (item) => {
      const event = item?.specversion === undefined ? item : fromCloudEvent(item);
      optionsOf(event, 'publishBatch of env.stream', ['data', ...ATTRIBUTES]);
      const { data, contentType, extensions = {}, ...attributes } = event;
      const bytes = data === undefined || data === null ? null : toBytes(data);
      if (bytes) parts.push(bytes);
      const implied = bytes === null ? undefined : impliedType(data);
      return {
        id: text(attributes.id), source: text(attributes.source), type: text(attributes.type),
        subject: text(attributes.subject), time: attributes.time instanceof Date ? attributes.time.toISOString() : text(attributes.time),
        dataSchema: text(attributes.dataSchema), contentType: text(contentType) ?? implied,
        extensions: Object.entries(extensions).map(([name, value]) => [name, asText(value)]),
        length: bytes === null ? null : bytes.length,
      };
    });
    return (await ask('stream.publish', { stream: this.#stream, events: heads }, parts.length ? joinBytes(parts) : null))[0];
  }
}

// What the node adds to events by itself: where one was kept, why it was put aside, and the trace that goes on.
const ADDED = /^(marram|traceparent$|tracestate$)/;

// A CloudEvent in JSON (CloudEvents JSON format 1.0.2 §2, §3.1) as `publishBatch` has it.
function fromCloudEvent(item) {
  const { specversion, id, source, type, subject, time, datacontenttype, dataschema, data, data_base64, ...rest } = item;
  if (specversion !== '1.0') throw new TypeError(`the specversion of an event is 1.0, not ${inspect(specversion, 1)}`);
  const set = Object.entries(rest).filter(([name, value]) => !ADDED.test(name) && value !== undefined && value !== null);
  const wrong = set.find(([, value]) => typeof value === 'object')?.[0];
  if (wrong) throw new TypeError(`${wrong} of an event is an object: an attribute is a string, a number or a boolean`);
  const event = { id, source, type, subject, time, dataSchema: dataschema, extensions: Object.fromEntries(set) };
  const bytes = isBufferSource(data) || data instanceof Blob;
  if (data === undefined || bytes) {
    const encoded = data_base64 === undefined || data_base64 === null || bytes;
    return { ...event, contentType: datacontenttype, data: encoded ? data : fromBase64(data_base64) };
  }
  if (data_base64 !== undefined && data_base64 !== null) throw new TypeError('an event has data and data_base64: keep one');
  const contentType = datacontenttype ?? 'application/json';
  if (/^[^;]*[/+]json\s*(;|$)/i.test(contentType)) {
    return { ...event, contentType, data: typeof data === 'string' ? host.encode(JSON.stringify(data)) : toBytes(data) };
  }
  if (typeof data === 'string') return { ...event, contentType, data };
  throw new TypeError('the data of an event is not a string, and its datacontenttype does not say that it is JSON');
}

// The content type of a value, where none is given.
function impliedType(value) {
  if (typeof value === 'string') return 'text/plain';
  if (value instanceof Blob) return value.type || undefined;
  return isBufferSource(value) ? undefined : 'application/json';
}

function text(value) {
  return value === undefined || value === null ? undefined : asText(value);
}

const MESSAGE_OPTIONS = ['qos', 'retain', 'expiry', 'contentType', 'responseTopic', 'correlationData', 'userProperties'];

class MqttTopics {
  // Publishes a message; settles once it is durable. Options: qos (0 to 2, default 1), retain, expiry (seconds), contentType,
  // responseTopic, correlationData, userProperties (an object, or an array of pairs).
  async publish(topic, payload, given) {
    const options = optionsOf(given, 'publish of env.mqtt', MESSAGE_OPTIONS);
    const { qos = 1, retain = false, expiry, userProperties = [] } = options;
    const pairs = Array.isArray(userProperties) ? userProperties : Object.entries(userProperties);
    const bytes = toBytes(payload);
    const correlation = options.correlationData === undefined ? null : toBytes(options.correlationData);
    const head = {
      topic: asText(topic), qos, retain: Boolean(retain), expiry_s: expiry, contentType: text(options.contentType),
      responseTopic: text(options.responseTopic), user: pairs.map(([name, value]) => [asText(name), asText(value)]),
      length: bytes.length, correlation: correlation !== null,
    };
    await ask('mqtt.publish', head, correlation ? joinBytes([bytes, correlation]) : bytes);
  }
}
