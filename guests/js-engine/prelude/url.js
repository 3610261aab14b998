// URL and URLSearchParams (url.spec.whatwg.org). Parsing is the host's; a part is cut out of the text when asked for.

// Adopts what host.urlParse gives: [href, scheme end, username end, host start, host end, path start, query, fragment].
function parseUrl(text, base) {
  return host.urlParse(text, base) ?? null;
}

class URL {
  #parts; #query = null;
  constructor(url, base) {
    if (arguments.length === 0) throw new TypeError('a URL needs a text');
    const text = asScalarText(url);
    const parts = parseUrl(text, base === undefined ? undefined : asScalarText(base));
    if (parts === null) throw new TypeError(`invalid URL: ${text}`);
    this.#parts = parts;
  }
  static canParse(url, base) {
    return parseUrl(asScalarText(url), base === undefined ? undefined : asScalarText(base)) !== null;
  }
  static parse(url, base) {
    return URL.canParse(url, base) ? new URL(url, base) : null;
  }
  static requery(url, search) {
    url.#set('search', search, false);
  }
  #set(part, value, tellQuery = true) {
    const parts = host.urlSet(this.#parts[0], part, value);
    if (parts) this.#parts = parts;
    if (tellQuery && this.#query) refill(this.#query, this.search);
  }
  get href() { return this.#parts[0]; }
  set href(value) {
    const parts = parseUrl(asScalarText(value));
    if (parts === null) throw new TypeError(`invalid URL: ${value}`);
    this.#parts = parts;
    if (this.#query) refill(this.#query, this.search);
  }
  get origin() {
    const scheme = this.protocol;
    return scheme === 'http:' || scheme === 'https:' ? `${scheme}//${this.host}` : host.urlOrigin(this.href);
  }
  get protocol() { return this.#parts[0].slice(0, this.#parts[1] + 1); }
  set protocol(value) { this.#set('protocol', asScalarText(value)); }
  get username() {
    const [href, scheme, user, start] = this.#parts;
    return start > user || href[start - 1] === '@' ? href.slice(scheme + 3, user) : '';
  }
  set username(value) { this.#set('username', asScalarText(value)); }
  get password() {
    const [href, , user, start] = this.#parts;
    return start > user && href[user] === ':' ? href.slice(user + 1, start - 1) : '';
  }
  set password(value) { this.#set('password', asScalarText(value)); }
  get host() { return this.#cutHost(5); }
  set host(value) { this.#set('host', asScalarText(value)); }
  get hostname() { return this.#cutHost(4); }
  set hostname(value) { this.#set('hostname', asScalarText(value)); }
  #cutHost(end) {
    const [href, , , start, hostEnd] = this.#parts;
    return hostEnd > start ? href.slice(start, this.#parts[end]) : '';
  }
  get port() {
    const [href, , , start, end, path] = this.#parts;
    return end > start && href[end] === ':' ? href.slice(end + 1, path) : '';
  }
  set port(value) { this.#set('port', asScalarText(value)); }
  get pathname() {
    const [href, , , , , path, query, fragment] = this.#parts;
    return href.slice(path, query >= 0 ? query : fragment >= 0 ? fragment : href.length);
  }
  set pathname(value) { this.#set('pathname', asScalarText(value)); }
  get search() {
    const [href, , , , , , query, fragment] = this.#parts;
    if (query < 0) return '';
    const text = href.slice(query, fragment >= 0 ? fragment : href.length);
    return text === '?' ? '' : text;
  }
  set search(value) { this.#set('search', asScalarText(value)); }
  get hash() {
    const [href, , , , , , , fragment] = this.#parts;
    const text = fragment < 0 ? '' : href.slice(fragment);
    return text === '#' ? '' : text;
  }
  set hash(value) { this.#set('hash', asScalarText(value)); }
  get searchParams() {
    if (this.#query === null) {
      this.#query = new URLSearchParams(this.search);
      attach(this.#query, this);
    }
    return this.#query;
  }
  toString() { return this.href; }
  toJSON() { return this.href; }
}
const requery = URL.requery;
delete URL.requery;

function decodeFormText(text) {
  if (text.includes('+')) text = text.replaceAll('+', ' ');
  if (!text.includes('%')) return text;
  const bytes = host.encode(text);
  const out = [];
  for (let at = 0; at < bytes.length; at++) {
    const digits = bytes[at] === 0x25 ? String.fromCharCode(bytes[at + 1], bytes[at + 2]) : '';
    if (/^[0-9a-f]{2}$/i.test(digits)) {
      out.push(parseInt(digits, 16));
      at += 2;
    } else {
      out.push(bytes[at]);
    }
  }
  return host.decode(Uint8Array.from(out), false, true);
}
function encodeFormText(text) {
  return encodeURIComponent(text).replace(/%20/g, '+').replace(/[!'()~]/g, (c) => '%' + c.charCodeAt(0).toString(16).toUpperCase());
}
function parseForm(text) {
  const list = [];
  for (const piece of text.split('&')) {
    if (piece === '') continue;
    const at = piece.indexOf('=');
    const name = at < 0 ? piece : piece.slice(0, at);
    list.push([decodeFormText(name), at < 0 ? '' : decodeFormText(piece.slice(at + 1))]);
  }
  return list;
}

class URLSearchParams {
  #list = []; #url = null;
  constructor(init = '') {
    if (typeof init === 'object' && init !== null || typeof init === 'function') {
      if (typeof init[Symbol.iterator] === 'function') {
        for (const pair of init) {
          const both = [...pair];
          if (both.length !== 2) throw new TypeError('each pair needs a name and a value');
          this.#list.push([asScalarText(both[0]), asScalarText(both[1])]);
        }
      } else {
        for (const key of Reflect.ownKeys(init)) {
          if (!Object.getOwnPropertyDescriptor(init, key)?.enumerable) continue;
          const name = asScalarText(key), value = asScalarText(init[key]);
          const known = this.#list.find((pair) => pair[0] === name);
          if (known) known[1] = value;
          else this.#list.push([name, value]);
        }
      }
    } else {
      const text = asScalarText(init);
      this.#list = parseForm(text.startsWith('?') ? text.slice(1) : text);
    }
  }
  static attach(params, url) { params.#url = url; }
  static refill(params, search) { params.#list = parseForm(search.slice(1)); }
  static list(params) { return params.#list; }
  #changed() {
    if (this.#url) requery(this.#url, this.toString());
  }
  get size() { return this.#list.length; }
  append(name, value) {
    needArguments(arguments, 2, 'append');
    this.#list.push([asScalarText(name), asScalarText(value)]);
    this.#changed();
  }
  delete(name, value) {
    needArguments(arguments, 1, 'delete');
    name = asScalarText(name);
    const only = value === undefined ? undefined : asScalarText(value);
    this.#list = this.#list.filter((pair) => pair[0] !== name || only !== undefined && pair[1] !== only);
    this.#changed();
  }
  get(name) {
    name = asScalarText(name);
    const found = this.#list.find((pair) => pair[0] === name);
    return found ? found[1] : null;
  }
  getAll(name) {
    name = asScalarText(name);
    return this.#list.filter((pair) => pair[0] === name).map((pair) => pair[1]);
  }
  has(name, value) {
    name = asScalarText(name);
    const only = value === undefined ? undefined : asScalarText(value);
    return this.#list.some((pair) => pair[0] === name && (only === undefined || pair[1] === only));
  }
  set(name, value) {
    needArguments(arguments, 2, 'set');
    name = asScalarText(name);
    value = asScalarText(value);
    const at = this.#list.findIndex((pair) => pair[0] === name);
    if (at < 0) this.#list.push([name, value]);
    else {
      this.#list[at] = [name, value];
      this.#list = this.#list.filter((pair, index) => index <= at || pair[0] !== name);
    }
    this.#changed();
  }
  sort() {
    this.#list.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0));
    this.#changed();
  }
  toString() {
    return this.#list.map(([name, value]) => `${encodeFormText(name)}=${encodeFormText(value)}`).join('&');
  }
}
const { attach, refill } = URLSearchParams;
defineIterable(URLSearchParams, URLSearchParams.list, 'URLSearchParams');
delete URLSearchParams.attach;
delete URLSearchParams.refill;
delete URLSearchParams.list;
publishClass(URLSearchParams);
publishClass(URL);
