// Request (fetch.spec.whatwg.org §5.4), as far as a server and its fetches go: no cache, mode or credentials of a browser.

const METHODS = new Set(['DELETE', 'GET', 'HEAD', 'OPTIONS', 'POST', 'PUT']);

function methodOf(value) {
  const text = asText(value);
  if (!/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(text)) throw new TypeError(`invalid method: ${text}`);
  const upper = text.toUpperCase();
  if (upper === 'CONNECT' || upper === 'TRACE' || upper === 'TRACK') throw new TypeError(`the method ${text} is not allowed`);
  return METHODS.has(upper) ? upper : text;
}

const INCOMING = Symbol('incoming');

class Request extends Body {
  #method = 'GET'; #url; #headers = null; #lines = null; #redirect = 'follow'; #signal = null;

  constructor(input, init) {
    super();
    if (input === INCOMING) {
      this.#method = init.method;
      this.#url = init.url;
      this.#lines = init.headers;
      // As in Workers: what a server answers goes on to the client that asked, redirects too.
      this.#redirect = 'manual';
      return;
    }
    if (arguments.length === 0) throw new TypeError('a Request needs a URL');
    const from = input instanceof Request ? input : null;
    if (from) {
      this.#method = from.#method;
      this.#url = from.#url;
      this.#redirect = from.#redirect;
      this.#signal = from.#signal;
    } else {
      const parts = parseUrl(asScalarText(input));
      if (parts === null) throw new TypeError(`invalid URL: ${input} (it has to be absolute)`);
      this.#url = parts[0];
      if (parts[3] > parts[2]) throw new TypeError('a URL with a user or a password is not allowed in a Request');
    }
    init ??= {};
    if (typeof init !== 'object') throw new TypeError('a request is made from a URL and an object');
    if (init.method !== undefined) this.#method = methodOf(init.method);
    if (init.redirect !== undefined) {
      if (!['follow', 'error', 'manual'].includes(init.redirect)) throw new TypeError(`invalid redirect mode: ${init.redirect}`);
      this.#redirect = init.redirect;
    }
    if (init.signal !== undefined && init.signal !== null) {
      if (!(init.signal instanceof AbortSignal)) throw new TypeError('init.signal is not an AbortSignal');
      this.#signal = init.signal;
    } else if (init.signal === null) {
      this.#signal = null;
    }
    this.#headers = new Headers(init.headers ?? from?.headers);
    const bodyless = this.#method === 'GET' || this.#method === 'HEAD';
    if (init.body !== undefined && init.body !== null) {
      if (bodyless) throw new TypeError(`a ${this.#method} request cannot have a body`);
      const type = extractBody(this, init.body);
      if (type !== null && !this.#headers.has('content-type')) this.#headers.set('content-type', type);
    } else if (from && hasBody(from)) {
      if (bodyless) throw new TypeError(`a ${this.#method} request cannot have a body`);
      setBody(this, takeBody(from));
    }
  }
  static signalOf(request) { return request.#signal; }
  // What goes to the host: its lines without making a Headers.
  static linesOf(request) { return request.#headers === null ? request.#lines : headersToLines(request.#headers); }

  get method() { return this.#method; }
  get url() { return this.#url; }
  get headers() {
    if (this.#headers === null) {
      this.#headers = headersFromLines(this.#lines, true);
      this.#lines = null;
    }
    return this.#headers;
  }
  get signal() {
    this.#signal ??= incomingSignal(this);
    return this.#signal;
  }
  get redirect() { return this.#redirect; }
  get cache() { return 'default'; }
  get credentials() { return 'same-origin'; }
  get destination() { return ''; }
  get integrity() { return ''; }
  get keepalive() { return false; }
  get mode() { return 'cors'; }
  get referrer() { return 'about:client'; }
  get referrerPolicy() { return ''; }
  get duplex() { return 'half'; }
  clone() {
    if (bodyUnusable(this)) throw new TypeError('the body has been read already and cannot be cloned');
    const copy = new Request(INCOMING, { method: this.#method, url: this.#url, headers: null });
    copy.#headers = new Headers(this.headers);
    copy.#redirect = this.#redirect;
    copy.#signal = this.#signal;
    copyBody(this, copy);
    return copy;
  }
}
const requestSignal = Request.signalOf;
const requestLines = Request.linesOf;
delete Request.signalOf;
delete Request.linesOf;
publishClass(Request);
