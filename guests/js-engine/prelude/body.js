// The body of a request or a response (fetch.spec.whatwg.org §5.3). It stays what it was given as until it is read: a string
// is never turned into a stream unless `body` is asked for.

class Body {
  // null, a string, a Uint8Array, a Source or a ReadableStream.
  #content = null; #used = false;
  // The content where that is a ReadableStream, or one that was made from it when `body` was asked for.
  #stream = null;

  static set(owner, content) {
    owner.#content = content;
    if (typeof content === 'object' && content instanceof ReadableStream) owner.#stream = content;
  }
  static has(owner) { return owner.#content !== null; }
  static unusable(owner) {
    return owner.#used || owner.#stream !== null && (owner.#stream.locked || disturbed(owner.#stream));
  }
  // Takes the content away for sending: null, string, bytes, an untouched Source, or a stream.
  static take(owner) {
    if (bodyUnusable(owner)) throw new TypeError('the body has been read already');
    if (owner.#content === null) return null;
    owner.#used = true;
    return owner.#stream ?? owner.#content;
  }
  static copy(owner, target) {
    if (bodyUnusable(owner)) throw new TypeError('the body has been read already and cannot be cloned');
    if (owner.#content instanceof Source || owner.#stream !== null) {
      const [one, two] = byteStream(owner.body).tee();
      owner.#content = owner.#stream = one;
      target.#content = target.#stream = two;
    } else {
      target.#content = owner.#content;
    }
  }

  get body() {
    const content = this.#content;
    if (content === null) return null;
    if (this.#stream === null) {
      this.#stream = content instanceof Source ? content.stream()
        : new Blob([content]).stream();
      if (this.#used) this.#stream.getReader();
    }
    return this.#stream;
  }
  get bodyUsed() { return this.#used || this.#stream !== null && disturbed(this.#stream); }

  async #read() {
    const content = takeBody(this);
    if (content === null) return '';
    if (typeof content === 'string' || content instanceof Uint8Array) return content;
    if (content instanceof Source) return content.all();
    const chunks = [];
    const reader = content.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return chunks.length === 0 ? '' : joinBytes(chunks);
      if (!(value instanceof Uint8Array)) throw new TypeError('a body stream has to give Uint8Arrays');
      chunks.push(value);
    }
  }
  async text() {
    const content = await this.#read();
    if (typeof content !== 'string') return host.decode(content, false, false);
    // As in its bytes, where decoding takes the mark away.
    return content.startsWith('\ufeff') ? content.slice(1) : content;
  }
  async json() { return JSON.parse(await this.text()); }
  async bytes() {
    const content = await this.#read();
    return typeof content === 'string' ? host.encode(content) : content.slice();
  }
  async arrayBuffer() { return (await this.bytes()).buffer; }
  async blob() { return new Blob([await this.#read()], { type: this.headers.get('content-type') ?? '' }); }
  async formData() {
    const type = this.headers.get('content-type') ?? '';
    const content = await this.#read();
    return parseFormData(typeof content === 'string' ? host.encode(content) : content, type);
  }
}
const { set: setBody, has: hasBody, take: takeBody, copy: copyBody, unusable: bodyUnusable } = Body;
for (const name of ['set', 'has', 'take', 'copy', 'unusable']) delete Body[name];

// The same as a stream of bytes, the `tee` of which gives each branch memory of its own.
function byteStream(stream) {
  try {
    stream.getReader({ mode: 'byob' }).releaseLock();
    return stream;
  } catch {
    // It gives whatever is put in.
  }
  const reader = stream.getReader();
  return new ReadableStream({
    type: 'bytes',
    async pull(out) {
      for (;;) {
        const { value, done } = await reader.read();
        if (done) {
          out.close();
          out.byobRequest?.respond(0);
          return;
        }
        if (!isBufferSource(value)) throw new TypeError('a body stream has to give Uint8Arrays');
        if (value.byteLength > 0) return out.enqueue(asBytes(value).slice());
      }
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
}

// What a `body` argument becomes: its content, and the content type that it implies.
function extractBody(owner, init) {
  let content, type = null;
  if (init instanceof ReadableStream) {
    if (init.locked || disturbed(init)) throw new TypeError('the stream has been read or is locked');
    content = init;
  } else if (isBufferSource(init)) {
    content = asBytes(init).slice();
  } else if (init instanceof Blob) {
    content = blobBytes(init);
    type = init.type || null;
  } else if (init instanceof URLSearchParams) {
    content = init.toString();
    type = 'application/x-www-form-urlencoded;charset=UTF-8';
  } else if (init instanceof FormData) {
    const boundary = `----marram-${host.uuid()}`;
    content = encodeFormData(init, boundary);
    type = `multipart/form-data; boundary=${boundary}`;
  } else {
    content = asScalarText(init);
    type = 'text/plain;charset=UTF-8';
  }
  setBody(owner, content);
  return type;
}
