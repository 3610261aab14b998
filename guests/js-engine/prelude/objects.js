// `env.blob.<bucket>`: objects, of any size. They come and go piece by piece, so that none has to fit into memory.

// The most of an object that goes to the host in one call.
const PIECE_BYTES = 1024 * 1024;

// The content of an object as a stream, after the piece that has come already.
function contentStream(bucket, { name, etag, range: [first, past] }, piece) {
  let at = first + piece.length;
  return new ReadableStream({
    type: 'bytes',
    async pull(controller) {
      let next = piece;
      piece = null;
      if (next === null && at < past) {
        [, next] = await ask('blob.get', { bucket, name, etag, offset: at, length: past - at });
        at += next.length;
      }
      if (next !== null) return controller.enqueue(next);
      controller.close();
      controller.byobRequest?.respond(0);
    },
  }, { highWaterMark: 0 });
}

// What is said of an object, and its content where that was asked for. It is read once, as that of a response.
class StoredObject {
  #content = null;
  constructor({ range, ...said }, content) {
    Object.assign(this, said);
    this.modified = new Date(said.modified);
    if (content) this.#content = new Response(content);
  }
  static hasContent(object) { return object.#content !== null; }
  get body() { return this.#asked().body; }
  get bodyUsed() { return this.#asked().bodyUsed; }
  async bytes() { return this.#asked().bytes(); }
  async arrayBuffer() { return this.#asked().arrayBuffer(); }
  async text() { return this.#asked().text(); }
  async json() { return this.#asked().json(); }
  #asked() {
    if (!this.#content) throw new TypeError('the content of this object was not asked for: use get');
    return this.#content;
  }
}

const { hasContent } = StoredObject;
delete StoredObject.hasContent;

class ObjectBucket {
  #bucket;
  constructor(bucket) { this.#bucket = bucket; }

  // The object with its content, or null. Options: range, { offset, length }. Where the object is replaced while its content
  // is read, that fails with a conflict.
  async get(name, options) {
    // unstorage's driver for Workers gives the second, too, which is what it makes of the object itself.
    const { range } = optionsOf(unlessIndex(options), 'get of env.blob', ['range'], ['type']);
    const { offset, length } = optionsOf(range, 'the range of get', ['offset', 'length']);
    const asked = { bucket: this.#bucket, name: nameText(name), offset, length };
    const [head, piece] = await ask('blob.get', asked);
    if (head === null) return null;
    const [first, past] = head.range;
    return new StoredObject(head, piece.length === past - first ? piece : contentStream(this.#bucket, head, piece));
  }

  // What is said of the object, or null.
  async head(name) {
    const [head] = await ask('blob.head', { bucket: this.#bucket, name: nameText(name) });
    return head && new StoredObject(head, null);
  }

  // Stores an object: a stream of bytes, or what `put` of keys takes; settles once that is durable, with what is said of it.
  // Options: contentType, metadata (an object), ifEtag (an etag, or null for no object).
  async put(name, value, given) {
    const said = ['name', 'size', 'etag', 'modified'];
    const options = optionsOf(given, 'put of env.blob', ['contentType', 'metadata', 'ifEtag'], [], said);
    const streamed = value instanceof ReadableStream;
    const implied = streamed ? undefined : impliedType(value);
    const head = {
      bucket: this.#bucket, name: nameText(name), contentType: text(options.contentType) ?? implied,
      metadata: Object.entries(options.metadata ?? {}).map(([name, value]) => [name, asText(value)]),
    };
    const expected = { etag: text(options.ifEtag), absent: options.ifEtag === null };
    if (streamed) return new StoredObject(await sendObject(head, expected, value), null);
    const bytes = valueBytes(value, 'give it.body, which streams');
    return new StoredObject((await ask('blob.put', { ...head, ...expected }, bytes))[0], null);
  }

  // Deletes one object, or several; settles once that is durable.
  async delete(names) {
    await ask('blob.delete', { bucket: this.#bucket, names: (Array.isArray(names) ? names : [names]).map(nameText) });
  }

  // { objects, prefixes, list_complete, cursor }. Options: prefix, delimiter, limit, cursor.
  async list(options) {
    const known = ['prefix', 'delimiter', 'limit', 'cursor'];
    const page = ['objects', 'prefixes', 'list_complete'];
    // Workers include what is said of an object only where it is asked for.
    const { prefix = '', delimiter, limit, cursor } = optionsOf(options, 'list of env.blob', known, ['include'], page);
    const head = { bucket: this.#bucket, prefix: asText(prefix), delimiter: text(delimiter), limit, after: cursor };
    const [{ objects, prefixes, after }] = await ask('blob.list', head);
    const listed = { objects: objects.map((head) => new StoredObject(head, null)), prefixes, list_complete: after === null };
    if (after !== null) listed.cursor = after;
    return listed;
  }
}

// Writes a stream, the next piece of which is asked for when the one before is on its way to the disk. A stream that breaks
// off leaves nothing behind.
async function sendObject(head, expected, stream) {
  const reader = stream.getReader();
  let upload;
  try {
    [{ upload }] = await ask('blob.begin', head);
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      if (!isBufferSource(value)) throw new TypeError('the stream of an object has to give Uint8Arrays; pipe text through a TextEncoderStream');
      const bytes = asBytes(value);
      for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
        await ask('blob.write', { upload }, bytes.subarray(at, at + PIECE_BYTES));
      }
    }
    return (await ask('blob.finish', { upload, ...expected }))[0];
  } catch (error) {
    reader.cancel(error).catch(() => {});
    if (upload !== undefined) await ask('blob.abandon', { upload }).catch(() => {});
    throw error;
  }
}
