// Bodies that come from the host piece by piece, and the web's streams around them. A piece is asked for only when
// somebody reads: that is the back-pressure.

const { ReadableStream, WritableStream, TransformStream } = globalThis.WebStreamsPolyfill;
for (const [name, value] of Object.entries(globalThis.WebStreamsPolyfill)) {
  publish(name, value);
  opaque.add(value.prototype);
}
delete globalThis.WebStreamsPolyfill;

// Whether somebody has begun to read this stream, which only the polyfill knows.
function disturbed(stream) { return stream._disturbed; }
if (disturbed(new ReadableStream()) !== false) throw new Error('these streams do not say whether they were read');

// By key: even for the bodies of requests, odd for those of fetches.
const sources = new Map();

class Source {
  constructor(key) {
    this.key = key;
    this.waiting = null;
    this.ended = false;
    // { error } once it broke off.
    this.failure = null;
    this.owner = current;
    // Called once nothing more can come.
    this.over = null;
    sources.set(key, this);
  }
  // The next piece, or null at the end. One call at a time.
  next() {
    if (this.failure) return Promise.reject(this.failure.error);
    if (this.ended) return Promise.resolve(null);
    return new Promise((resolve, reject) => {
      this.waiting = { resolve, reject };
      host.pull(this.key);
    });
  }
  chunk(bytes) {
    const { waiting } = this;
    this.waiting = null;
    waiting?.resolve(bytes);
  }
  end() {
    this.close();
    this.chunk(null);
  }
  broken(error) {
    const { waiting } = this;
    this.waiting = null;
    this.failure = { error };
    this.close();
    waiting?.reject(error);
  }
  // Nobody reads the rest.
  discard() {
    if (this.ended) return;
    this.close();
    host.discard(this.key);
  }
  close() {
    this.release();
    this.over?.();
  }
  // The host passes the rest on by itself; JavaScript has no part in it any more.
  release() {
    this.ended = true;
    sources.delete(this.key);
  }
  async all() {
    const chunks = [];
    for (let chunk; (chunk = await this.next()) !== null;) chunks.push(chunk);
    return chunks.length === 0 ? new Uint8Array(0) : joinBytes(chunks);
  }
  stream() {
    return new ReadableStream({
      type: 'bytes',
      pull: async (controller) => {
        const chunk = await this.next();
        if (chunk !== null) return controller.enqueue(chunk);
        controller.close();
        controller.byobRequest?.respond(0);
      },
      cancel: () => this.discard(),
    }, { highWaterMark: 0 });
  }
}

// How much of one outgoing body may be on its way to the host before the next piece is read.
const WINDOW_BYTES = 64 * 1024;
// By key: even for responses, odd for fetches.
const sinks = new Map();

function drained(key, bytes) {
  const sink = sinks.get(key);
  if (!sink) return;
  sink.room += bytes;
  if (sink.room > 0) {
    const { wake } = sink;
    sink.wake = null;
    wake?.();
  }
}

// Sends a stream to the host under this key; settles when it has ended either way, with { error } if it broke off.
async function pump(key, stream) {
  const sink = { room: WINDOW_BYTES, wake: null, reader: null, stopped: false };
  sinks.set(key, sink);
  try {
    sink.reader = stream.getReader();
    for (;;) {
      const { value, done } = await sink.reader.read();
      if (sink.stopped) return null;
      if (done) break;
      if (!isBufferSource(value)) throw new TypeError('a body stream has to give Uint8Arrays; pipe text through a TextEncoderStream');
      const bytes = asBytes(value);
      if (bytes.length === 0) continue;
      host.chunk(key, bytes);
      sink.room -= bytes.length;
      if (sink.room <= 0) await new Promise((resolve) => { sink.wake = resolve; });
      if (sink.stopped) return null;
    }
    host.end(key);
    return null;
  } catch (error) {
    if (!sink.stopped) host.broken(key, String(error?.message ?? error));
    sink.reader?.cancel(error).catch(() => {});
    return { error };
  } finally {
    sinks.delete(key);
  }
}

// The other side does not read any more.
function stopPump(key, reason) {
  const sink = sinks.get(key);
  if (!sink) return;
  sink.stopped = true;
  sink.reader?.cancel(reason).catch(() => {});
  sink.wake?.();
}

function transformer(name, encoding, transform) {
  const cls = { [name]: class {
    #transform = transform();
    get readable() { return this.#transform.readable; }
    get writable() { return this.#transform.writable; }
    get encoding() { return encoding; }
  } }[name];
  publishClass(cls);
}
transformer('TextEncoderStream', 'utf-8', () => {
  let high = '';
  return new TransformStream({
    transform(chunk, controller) {
      let text = high + asText(chunk);
      high = /[\ud800-\udbff]$/.test(text) ? text.slice(-1) : '';
      text = high ? text.slice(0, -1) : text;
      if (text) controller.enqueue(host.encode(text));
    },
    flush(controller) { if (high) controller.enqueue(host.encode('\ufffd')); },
  });
});

class TextDecoderStream {
  #decoder; #transform;
  constructor(label, options) {
    this.#decoder = new TextDecoder(label, options);
    const emit = (controller, text) => { if (text) controller.enqueue(text); };
    this.#transform = new TransformStream({
      transform: (chunk, controller) => emit(controller, this.#decoder.decode(chunk, { stream: true })),
      flush: (controller) => emit(controller, this.#decoder.decode()),
    });
  }
  get encoding() { return this.#decoder.encoding; }
  get fatal() { return this.#decoder.fatal; }
  get ignoreBOM() { return this.#decoder.ignoreBOM; }
  get readable() { return this.#transform.readable; }
  get writable() { return this.#transform.writable; }
}
publishClass(TextDecoderStream);
