// Response (fetch.spec.whatwg.org §5.5).

const REASONS = {
  200: 'OK', 201: 'Created', 202: 'Accepted', 204: 'No Content', 206: 'Partial Content', 301: 'Moved Permanently', 302: 'Found',
  303: 'See Other', 304: 'Not Modified', 307: 'Temporary Redirect', 308: 'Permanent Redirect', 400: 'Bad Request',
  401: 'Unauthorized', 403: 'Forbidden', 404: 'Not Found', 405: 'Method Not Allowed', 409: 'Conflict', 410: 'Gone',
  413: 'Content Too Large', 415: 'Unsupported Media Type', 422: 'Unprocessable Content', 429: 'Too Many Requests',
  500: 'Internal Server Error', 501: 'Not Implemented', 502: 'Bad Gateway', 503: 'Service Unavailable', 504: 'Gateway Timeout',
};
const BODYLESS = new Set([101, 204, 205, 304]);
const FETCHED = Symbol('fetched');

class Response extends Body {
  #status = 200; #statusText = ''; #headers; #url = ''; #redirected = false; #type = 'default';

  constructor(body, init) {
    super();
    if (body === FETCHED) return;
    if (init === undefined) {
      this.#headers = new Headers();
    } else {
      if (init !== null && typeof init !== 'object') throw new TypeError('a response is made from a body and an object');
      init ??= {};
      const { status, statusText } = init;
      if (status !== undefined) {
        const code = Number(status) & 0xffff;
        if (code < 200 || code > 599) throw new RangeError(`invalid status: ${status} (200 to 599)`);
        this.#status = code;
      }
      if (statusText !== undefined) {
        this.#statusText = asText(statusText);
        if (/[^\t\x20-\x7e\x80-\xff]/.test(this.#statusText)) throw new TypeError('invalid status text');
      }
      this.#headers = new Headers(init.headers);
    }
    if (body !== undefined && body !== null) {
      if (BODYLESS.has(this.#status)) throw new TypeError(`a response with status ${this.#status} cannot have a body`);
      const type = extractBody(this, body);
      if (type !== null && !this.#headers.has('content-type')) this.#headers.append('content-type', type);
    }
  }
  static fetched(status, url, asked, lines, content) {
    const response = new Response(FETCHED);
    response.#status = status;
    response.#statusText = REASONS[status] ?? '';
    response.#url = url || asked;
    response.#redirected = url !== '' && url !== asked;
    response.#headers = headersFromLines(lines, true);
    response.#type = 'basic';
    setBody(response, content);
    return response;
  }
  static error() {
    const response = new Response(FETCHED);
    response.#status = 0;
    response.#type = 'error';
    response.#headers = headersFromLines('', true);
    return response;
  }
  static json(data, init = {}) {
    const text = JSON.stringify(data);
    if (text === undefined) throw new TypeError('the value cannot be written as JSON');
    const response = new Response(text, init);
    if (!new Headers(init?.headers).has('content-type')) response.#headers.set('content-type', 'application/json');
    return response;
  }
  static redirect(url, status = 302) {
    const parts = parseUrl(asScalarText(url));
    if (parts === null) throw new TypeError(`invalid URL: ${url} (it has to be absolute)`);
    if (![301, 302, 303, 307, 308].includes(Number(status))) throw new RangeError(`invalid redirect status: ${status}`);
    const response = new Response(null, { status, headers: { location: parts[0] } });
    freezeHeaders(response.#headers);
    return response;
  }

  get status() { return this.#status; }
  get statusText() { return this.#statusText; }
  get ok() { return this.#status >= 200 && this.#status < 300; }
  get headers() { return this.#headers; }
  get url() { return this.#url.replace(/#.*$/, ''); }
  get redirected() { return this.#redirected; }
  get type() { return this.#type; }
  clone() {
    if (bodyUnusable(this)) throw new TypeError('the body has been read already and cannot be cloned');
    const copy = new Response(FETCHED);
    copy.#status = this.#status;
    copy.#statusText = this.#statusText;
    copy.#url = this.#url;
    copy.#redirected = this.#redirected;
    copy.#type = this.#type;
    copy.#headers = new Headers(this.#headers);
    copyBody(this, copy);
    return copy;
  }
}
const fetchedResponse = Response.fetched;
delete Response.fetched;
publishClass(Response);
