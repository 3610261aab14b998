// Headers (fetch.spec.whatwg.org §5.2). What came from the host stays one string until somebody looks.

// Names that were checked before, with their lower-case form: most programs use a handful.
const knownNames = new Map();
const KNOWN_NAMES_MAX = 256;

function headerName(name) {
  const known = knownNames.get(name);
  if (known !== undefined) return known;
  const text = asText(name);
  if (!/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(text)) throw new TypeError(`invalid header name: ${JSON.stringify(text)}`);
  const lower = text.toLowerCase();
  if (knownNames.size < KNOWN_NAMES_MAX) knownNames.set(text, lower);
  return lower;
}

function headerValue(value) {
  const text = asText(value);
  if (/^[\t\n\r ]|[\t\n\r ]$|[\0\r\n]|[^\0-\xff]/.test(text)) return trimmedValue(text);
  return text;
}

function trimmedValue(text) {
  const trimmed = text.replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, '');
  if (/[\0\r\n]|[^\0-\xff]/.test(trimmed)) throw new TypeError(`invalid header value: ${JSON.stringify(trimmed)}`);
  return trimmed;
}

class Headers {
  // Exactly one of the two: `name\nvalue\n` for each field, or name and value by turns.
  #lines = null; #list = null;
  #frozen = false;

  constructor(init) {
    this.#list = [];
    if (init !== undefined) this.#fill(init);
  }
  #fill(init) {
    if (init === null || typeof init !== 'object' && typeof init !== 'function') throw new TypeError('headers are an object or pairs');
    if (#lines in init && init[Symbol.iterator] === Headers.prototype.entries) {
      this.#list = init.#fields().slice();
    } else if (init[Symbol.iterator] !== undefined && init[Symbol.iterator] !== null) {
      for (const pair of init) {
        const both = [...pair];
        if (both.length !== 2) throw new TypeError('each header needs a name and a value');
        this.append(both[0], both[1]);
      }
    } else {
      for (const key of Reflect.ownKeys(init)) {
        const property = Reflect.getOwnPropertyDescriptor(init, key);
        if (property?.enumerable) this.append(key, init[key]);
      }
    }
  }
  #fields() {
    if (this.#list === null) {
      this.#list = this.#lines.split('\n');
      this.#list.pop();
      this.#lines = null;
    }
    return this.#list;
  }
  #mutable() {
    if (this.#frozen) throw new TypeError('these headers are immutable; make new Headers(headers)');
    return this.#fields();
  }
  static fromLines(lines, frozen) {
    const headers = new Headers();
    headers.#lines = lines;
    headers.#list = null;
    headers.#frozen = frozen;
    return headers;
  }
  static toLines(headers) {
    if (headers.#list === null) return headers.#lines;
    return headers.#list.length === 0 ? '' : headers.#list.join('\n') + '\n';
  }
  static freeze(headers) { headers.#frozen = true; }
  static sorted(headers) {
    const fields = headers.#fields();
    const names = new Set();
    for (let at = 0; at < fields.length; at += 2) names.add(fields[at]);
    const out = [];
    for (const name of [...names].sort()) {
      if (name === 'set-cookie') for (const value of headers.getSetCookie()) out.push([name, value]);
      else out.push([name, headers.#joined(name)]);
    }
    return out;
  }
  append(name, value) {
    if (arguments.length < 2) throw new TypeError('append needs a name and a value');
    const lower = headerName(name), text = headerValue(value);
    this.#mutable().push(lower, text);
  }
  set(name, value) {
    if (arguments.length < 2) throw new TypeError('set needs a name and a value');
    const lower = headerName(name), text = headerValue(value);
    const fields = this.#mutable();
    for (let at = 0; at < fields.length; at += 2) {
      if (fields[at] !== lower) continue;
      fields[at + 1] = text;
      this.#remove(lower, at + 2);
      return;
    }
    fields.push(lower, text);
  }
  delete(name) {
    const lower = headerName(name);
    this.#mutable();
    this.#remove(lower, 0);
  }
  #remove(lower, from) {
    const fields = this.#list;
    for (let at = fields.length - 2; at >= from; at -= 2) if (fields[at] === lower) fields.splice(at, 2);
  }
  get(name) { return this.#joined(headerName(name)); }
  #joined(lower) {
    const fields = this.#fields();
    let found = null;
    for (let at = 0; at < fields.length; at += 2) {
      if (fields[at] === lower) found = found === null ? fields[at + 1] : `${found}, ${fields[at + 1]}`;
    }
    return found;
  }
  has(name) {
    const lower = headerName(name);
    const fields = this.#fields();
    for (let at = 0; at < fields.length; at += 2) if (fields[at] === lower) return true;
    return false;
  }
  getSetCookie() {
    const fields = this.#fields();
    const out = [];
    for (let at = 0; at < fields.length; at += 2) if (fields[at] === 'set-cookie') out.push(fields[at + 1]);
    return out;
  }
}
const headersFromLines = Headers.fromLines;
const headersToLines = Headers.toLines;
const freezeHeaders = Headers.freeze;
defineIterable(Headers, Headers.sorted, 'Headers');
delete Headers.fromLines;
delete Headers.toLines;
delete Headers.freeze;
delete Headers.sorted;
publishClass(Headers);
