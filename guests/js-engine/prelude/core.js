// What every part uses: the way to publish a class, conversions as Web IDL has them, and which request is running.

// The request on whose behalf JavaScript runs now, 0 when none: set at each event, so it holds through the promise jobs
// that the event sets off.
let current = 0;
// True while the module's top level runs. What a snapshot would freeze is refused then.
let loading = false;

function publish(name, value) {
  Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
}

// Prototypes of what is more than its properties: neither JSON nor a clone would have it.
const opaque = new Set([Promise, WeakMap, WeakSet, WeakRef, FinalizationRegistry, Iterator].map((cls) => cls.prototype));
opaque.add(Object.getPrototypeOf(async function* () {}).prototype);

// Gives a class its tag and makes its members enumerable, as Web IDL asks.
function publishClass(cls, name = cls.name) {
  Object.defineProperty(cls.prototype, Symbol.toStringTag, { value: name, configurable: true });
  opaque.add(cls.prototype);
  for (const key of Object.getOwnPropertyNames(cls.prototype)) {
    if (key !== 'constructor') Object.defineProperty(cls.prototype, key, { enumerable: true });
  }
  publish(name, cls);
}

function refuseAtTopLevel(what) {
  if (loading) {
    throw new TypeError(`${what} is not allowed at the module's top level; move it into the fetch handler`);
  }
}

// What such a value is an instance of, or null.
function opaqueName(value) {
  for (let at = Object.getPrototypeOf(value); at !== null; at = Object.getPrototypeOf(at)) {
    if (opaque.has(at)) return at[Symbol.toStringTag];
  }
  return null;
}

function articled(name) { return (/^[AEIO]/.test(name) ? 'an ' : 'a ') + name; }

// Web IDL counts what it is given: `append('name')` alone would append "undefined".
function needArguments(given, least, call) {
  if (given.length < least) throw new TypeError(`${call} needs ${least === 1 ? 'an argument' : `${least} arguments`}`);
}

function asBytes(value) {
  if (value instanceof Uint8Array) return value;
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  throw new TypeError('an ArrayBuffer or a view of one is needed');
}

function isBufferSource(value) {
  return value instanceof ArrayBuffer || ArrayBuffer.isView(value);
}

function asText(value) {
  if (typeof value === 'symbol') throw new TypeError('a symbol is not a string');
  return String(value);
}

// A USVString: lone surrogates become U+FFFD.
function asScalarText(value) {
  return asText(value).toWellFormed();
}

function joinBytes(chunks) {
  if (chunks.length === 1) return chunks[0];
  let length = 0;
  for (const chunk of chunks) length += chunk.length;
  const all = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return all;
}

function defineIterable(cls, entries, name) {
  const prototype = Object.create(Object.getPrototypeOf(Object.getPrototypeOf([][Symbol.iterator]())), {
    next: {
      writable: true, enumerable: true, configurable: true,
      value() {
        const { target, kind } = this.state;
        const list = entries(target);
        if (this.state.at >= list.length) return { value: undefined, done: true };
        const [key, value] = list[this.state.at++];
        return { value: kind === 0 ? [key, value] : kind === 1 ? key : value, done: false };
      },
    },
    [Symbol.toStringTag]: { value: `${name} Iterator`, configurable: true },
  });
  const make = (target, kind) => {
    entries(target);
    return Object.create(prototype, { state: { value: { target, kind, at: 0 } } });
  };
  const methods = {
    entries() { return make(this, 0); },
    keys() { return make(this, 1); },
    values() { return make(this, 2); },
    forEach(callback, self) {
      if (typeof callback !== 'function') throw new TypeError('forEach needs a function');
      for (const [key, value] of entries(this)) callback.call(self, value, key, this);
    },
  };
  for (const key of Object.keys(methods)) {
    Object.defineProperty(cls.prototype, key, { value: methods[key], writable: true, configurable: true, enumerable: true });
  }
  Object.defineProperty(cls.prototype, Symbol.iterator, { value: methods.entries, writable: true, configurable: true });
}

publish('self', globalThis);
publish('navigator', Object.freeze({ userAgent: 'Marram' }));
publish('performance', Object.freeze({
  now() {
    // First: it is the first call that begins the count.
    const from = epoch();
    return host.monotonic() - from;
  },
  get timeOrigin() { return host.now() - this.now(); },
  toJSON() { return { timeOrigin: this.timeOrigin }; },
}));
Math.random = host.random;
Object.defineProperty(Math, 'random', { enumerable: false });

let started = -1;
function epoch() {
  if (loading) return host.monotonic();
  if (started < 0) started = host.monotonic();
  return started;
}
