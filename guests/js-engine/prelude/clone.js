// structuredClone (html.spec.whatwg.org §2.7) for the values that exist here.

publish('structuredClone', function structuredClone(value, options) {
  if (arguments.length === 0) throw new TypeError('structuredClone needs a value');
  const seen = new Map();
  const moved = [...(options?.transfer ?? [])];
  const copy = cloneValue(value, seen);
  for (const buffer of moved) {
    if (!(buffer instanceof ArrayBuffer)) throw new DOMException('only an ArrayBuffer can be transferred', 'DataCloneError');
    buffer.transfer();
  }
  return copy;
});

const ERRORS = { Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };

function cloneValue(value, seen) {
  if (typeof value === 'function' || typeof value === 'symbol') {
    throw new DOMException(`a ${typeof value} cannot be cloned`, 'DataCloneError');
  }
  if (typeof value !== 'object' || value === null) return value;
  if (seen.has(value)) return seen.get(value);
  const keep = (copy) => {
    seen.set(value, copy);
    return copy;
  };
  if (Array.isArray(value)) return fill(keep(new Array(value.length)), value, seen);
  switch (Object.prototype.toString.call(value)) {
    case '[object Date]': return keep(new Date(value.getTime()));
    case '[object RegExp]': return keep(new RegExp(value.source, value.flags));
    case '[object Boolean]': case '[object Number]': case '[object String]': return keep(Object(value.valueOf()));
    case '[object Map]': {
      const copy = keep(new Map());
      for (const [key, item] of [...value]) copy.set(cloneValue(key, seen), cloneValue(item, seen));
      return copy;
    }
    case '[object Set]': {
      const copy = keep(new Set());
      for (const item of [...value]) copy.add(cloneValue(item, seen));
      return copy;
    }
  }
  if (value instanceof ArrayBuffer) return keep(value.slice(0));
  if (value instanceof DataView) return keep(new DataView(cloneValue(value.buffer, seen), value.byteOffset, value.byteLength));
  if (ArrayBuffer.isView(value)) return keep(new value.constructor(cloneValue(value.buffer, seen), value.byteOffset, value.length));
  if (value instanceof DOMException) return keep(new DOMException(value.message, value.name));
  if (value instanceof Error) {
    const copy = keep(Object.create((ERRORS[value.name] ?? Error).prototype));
    for (const name of ['message', 'stack', 'cause']) {
      if (Object.hasOwn(value, name)) Object.defineProperty(copy, name, { value: cloneValue(value[name], seen), writable: true, configurable: true });
    }
    return copy;
  }
  if (value instanceof File) return keep(new File([value], value.name, value));
  if (value instanceof Blob) return keep(new Blob([value], value));
  if (value instanceof Body || value instanceof Headers || value instanceof Promise || value instanceof WeakMap || value instanceof WeakSet || value instanceof EventTarget) {
    throw new DOMException(`${value.constructor.name} cannot be cloned`, 'DataCloneError');
  }
  return fill(keep({}), value, seen);
}

function fill(copy, value, seen) {
  for (const key of Object.keys(value)) {
    const item = cloneValue(value[key], seen);
    // An assignment to this name would set the copy's prototype.
    if (key === '__proto__') Object.defineProperty(copy, key, { value: item, writable: true, enumerable: true, configurable: true });
    else copy[key] = item;
  }
  return copy;
}
