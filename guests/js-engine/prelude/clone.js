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
  const { make, fill } = Array.isArray(value) ? ARRAY : kindOf(value);
  const copy = make(value, seen);
  seen.set(value, copy);
  fill?.(copy, value, seen);
  return copy;
}

function kindOf(value) {
  kinds ??= makeKinds();
  for (let at = Object.getPrototypeOf(value); at !== null && at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    const kind = kinds.get(at);
    if (kind !== undefined) {
      if (isOf(kind, value)) return kind;
      if (host.isProxy(value)) throw uncloned(`a Proxy of ${articled(at.constructor.name)} cannot be cloned`);
    }
    if (opaque.has(at)) throw uncloned(`${articled(at[Symbol.toStringTag])} cannot be cloned`);
  }
  return PLAIN;
}

// One that only has its prototype is a plain object. No code of the value itself runs here: what that throws is no answer.
function isOf({ is }, value) {
  try {
    return is(value) !== undefined;
  } catch {
    return false;
  }
}

const NATIVE_ERRORS = { EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };
const bound = (method) => Function.prototype.call.bind(method);
const getter = (cls, name) => bound(Object.getOwnPropertyDescriptor(cls.prototype, name).get);
const TypedArray = Object.getPrototypeOf(Uint8Array);
const arrayName = getter(TypedArray, Symbol.toStringTag);
const timeOf = bound(Date.prototype.getTime);

const PLAIN = { make: () => ({}), fill: cloneMembers };
const ARRAY = { make: (value) => new Array(value.length), fill: cloneMembers };
// By prototype, for anything but arrays and plain objects: what tells that a value is one, how a copy is made, and how it is
// filled where it may contain itself. Made when it is needed, which in most functions it never is.
let kinds = null;
const makeKinds = () => new Map([
  [Date, { is: timeOf, make: (value) => new Date(timeOf(value)) }],
  [RegExp, { is: getter(RegExp, 'source'), make: (value) => new RegExp(value.source, value.flags) }],
  [Map, { is: getter(Map, 'size'), make: () => new Map(), fill: cloneEntries }],
  [Set, { is: getter(Set, 'size'), make: () => new Set(), fill: cloneItems }],
  [ArrayBuffer, { is: getter(ArrayBuffer, 'byteLength'), make: cloneBuffer }],
  [DataView, { is: getter(DataView, 'buffer'), make: cloneView }],
  [TypedArray, { is: arrayName, make: cloneArray }],
  [DOMException, { is: getter(DOMException, 'name'), make: newException, fill: cloneError }],
  [Error, { is: () => true, make: newError, fill: cloneError }],
  [File, { is: getter(File, 'name'), make: (value) => new File([value], value.name, value) }],
  [Blob, { is: getter(Blob, 'size'), make: (value) => new Blob([value], value) }],
  ...[Boolean, Number, String, BigInt].map((cls) => {
    const is = bound(cls.prototype.valueOf);
    return [cls, { is, make: (value) => Object(is(value)) }];
  }),
].map(([cls, kind]) => [cls.prototype, kind]));

function cloneEntries(copy, value, seen) {
  for (const [key, item] of [...value]) copy.set(cloneValue(key, seen), cloneValue(item, seen));
}

function cloneItems(copy, value, seen) {
  for (const item of [...value]) copy.add(cloneValue(item, seen));
}

function cloneBuffer(buffer) {
  if (buffer.detached) throw uncloned('an ArrayBuffer that was transferred cannot be cloned');
  if (!buffer.resizable) return buffer.slice(0);
  const copy = new ArrayBuffer(buffer.byteLength, { maxByteLength: buffer.maxByteLength });
  new Uint8Array(copy).set(new Uint8Array(buffer));
  return copy;
}

// Of its own kind also where a class extends it.
function cloneArray(value, seen) {
  const cls = globalThis[arrayName(value)];
  return new cls(cloneValue(value.buffer, seen), value.byteOffset, value.length);
}

function cloneView(value, seen) {
  return new DataView(cloneValue(value.buffer, seen), value.byteOffset, value.byteLength);
}

function newException({ message, name }) { return new DOMException(message, name); }

function newError({ name }) {
  return new (Object.hasOwn(NATIVE_ERRORS, name) ? NATIVE_ERRORS[name] : Error)();
}

function cloneError(copy, value, seen) {
  for (const name of ['message', 'stack', 'cause']) {
    const property = Object.getOwnPropertyDescriptor(value, name);
    if (property === undefined || !('value' in property)) continue;
    const item = name === 'cause' ? cloneValue(property.value, seen) : asText(property.value);
    Object.defineProperty(copy, name, { value: item, writable: true, configurable: true });
  }
}

function cloneMembers(copy, value, seen) {
  for (const key of Object.keys(value)) {
    const item = cloneValue(value[key], seen);
    // An assignment to this name would set the copy's prototype.
    if (key === '__proto__') Object.defineProperty(copy, key, { value: item, writable: true, enumerable: true, configurable: true });
    else copy[key] = item;
  }
}
