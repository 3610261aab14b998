// structuredClone (html.spec.whatwg.org §2.7) for the values that exist here.

publish('structuredClone', function structuredClone(value, options) {
  if (arguments.length === 0) throw new TypeError('structuredClone needs a value');
  const moved = [...(options?.transfer ?? [])];
  for (const buffer of moved) {
    if (!(buffer instanceof ArrayBuffer)) throw uncloned('only an ArrayBuffer can be transferred');
    if (buffer.detached) throw uncloned('an ArrayBuffer that was transferred cannot be transferred again');
  }
  if (new Set(moved).size !== moved.length) throw uncloned('an ArrayBuffer can be transferred once');
  const copy = cloneValue(value, new Map());
  for (const buffer of moved) buffer.transfer();
  return copy;
});

function uncloned(message) { return new DOMException(message, 'DataCloneError'); }

function cloneValue(value, seen) {
  if (typeof value === 'function' || typeof value === 'symbol') throw uncloned(`a ${typeof value} cannot be cloned`);
  if (typeof value !== 'object' || value === null) return value;
  if (seen.has(value)) return seen.get(value);
  const copy = Array.isArray(value) ? new Array(value.length) : cloneSpecial(value, seen) ?? {};
  seen.set(value, copy);
  if (copy instanceof Map) for (const [key, item] of [...value]) copy.set(cloneValue(key, seen), cloneValue(item, seen));
  else if (copy instanceof Set) for (const item of [...value]) copy.add(cloneValue(item, seen));
  else if (copy instanceof Error) cloneError(copy, value, seen);
  else if (Array.isArray(copy) || Object.getPrototypeOf(copy) === Object.prototype) fill(copy, value, seen);
  return copy;
}

// Anything but arrays and plain objects, which it answers with null. Maps, sets and errors are empty yet: they may contain
// themselves.
function cloneSpecial(value, seen) {
  const prototype = Object.getPrototypeOf(value);
  if (prototype === Object.prototype || prototype === null) return null;
  for (const [cls, clone] of CLONES) {
    if (!(value instanceof cls)) continue;
    try {
      return clone(value, seen);
    } catch (error) {
      // One that only has its prototype is a plain object.
      if (!(error instanceof TypeError)) throw error;
    }
  }
  const name = opaqueName(value);
  if (name !== null) throw uncloned(`${articled(name)} cannot be cloned`);
  return null;
}

const NATIVE_ERRORS = { EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };
const sizeOf = (cls) => Function.prototype.call.bind(Object.getOwnPropertyDescriptor(cls.prototype, 'size').get);
const [mapSize, setSize] = [Map, Set].map(sizeOf);
const TypedArray = Object.getPrototypeOf(Uint8Array);
const kindOf = Function.prototype.call.bind(Object.getOwnPropertyDescriptor(TypedArray.prototype, Symbol.toStringTag).get);
const primitive = (cls) => (value) => Object(cls.prototype.valueOf.call(value));
const CLONES = [
  [Date, (value) => new Date(Date.prototype.getTime.call(value))],
  [RegExp, (value) => new RegExp(value.source, value.flags)],
  [Map, (value) => mapSize(value) >= 0 && new Map()],
  [Set, (value) => setSize(value) >= 0 && new Set()],
  [ArrayBuffer, cloneBuffer],
  [DataView, (value, seen) => new DataView(cloneValue(value.buffer, seen), value.byteOffset, value.byteLength)],
  [TypedArray, cloneArray],
  [DOMException, ({ message, name }) => new DOMException(message, name)],
  [Error, ({ name }) => new (Object.hasOwn(NATIVE_ERRORS, name) ? NATIVE_ERRORS[name] : Error)()],
  [File, (value) => new File([value], value.name, value)],
  [Blob, (value) => new Blob([value], value)],
  ...[Boolean, Number, String, BigInt].map((cls) => [cls, primitive(cls)]),
];

function cloneBuffer(buffer) {
  if (buffer.detached) throw uncloned('an ArrayBuffer that was transferred cannot be cloned');
  if (!buffer.resizable) return buffer.slice(0);
  const copy = new ArrayBuffer(buffer.byteLength, { maxByteLength: buffer.maxByteLength });
  new Uint8Array(copy).set(new Uint8Array(buffer));
  return copy;
}

// Of its own kind also where a class extends it.
function cloneArray(value, seen) {
  const cls = globalThis[kindOf(value)];
  return new cls(cloneValue(value.buffer, seen), value.byteOffset, value.length);
}

function cloneError(copy, value, seen) {
  for (const name of ['message', 'stack', 'cause']) {
    const property = Object.getOwnPropertyDescriptor(value, name);
    if (property === undefined || !('value' in property)) continue;
    const item = name === 'cause' ? cloneValue(property.value, seen) : asText(property.value);
    Object.defineProperty(copy, name, { value: item, writable: true, configurable: true });
  }
}

function fill(copy, value, seen) {
  for (const key of Object.keys(value)) {
    const item = cloneValue(value[key], seen);
    // An assignment to this name would set the copy's prototype.
    if (key === '__proto__') Object.defineProperty(copy, key, { value: item, writable: true, enumerable: true, configurable: true });
    else copy[key] = item;
  }
}
