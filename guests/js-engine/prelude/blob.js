// Blob and File (w3c.github.io/FileAPI). A blob holds its bytes; slices share them.

class Blob {
  #bytes; #type;
  constructor(parts = [], options = {}) {
    if (typeof parts !== 'object' || parts === null || typeof parts[Symbol.iterator] !== 'function') {
      throw new TypeError('a Blob needs a sequence of parts');
    }
    const list = [];
    for (const part of parts) {
      if (part instanceof Blob) list.push(part.#bytes);
      else if (isBufferSource(part)) list.push(asBytes(part).slice());
      else list.push(host.encode(asText(part)));
    }
    this.#bytes = list.length === 0 ? new Uint8Array(0) : joinBytes(list);
    const type = asText(options?.type ?? '');
    this.#type = /^[\x20-\x7e]*$/.test(type) ? type.toLowerCase() : '';
  }
  static bytesOf(blob) { return blob.#bytes; }
  get size() { return this.#bytes.length; }
  get type() { return this.#type; }
  slice(start = 0, end = this.size, type = '') {
    const part = new Blob([], { type });
    const at = (index) => (index < 0 ? Math.max(this.size + index, 0) : Math.min(index, this.size));
    part.#bytes = this.#bytes.subarray(at(start), Math.max(at(start), at(end)));
    return part;
  }
  async text() { return host.decode(this.#bytes, false, false); }
  async bytes() { return this.#bytes.slice(); }
  async arrayBuffer() { return this.#bytes.slice().buffer; }
  stream() {
    const bytes = this.#bytes;
    return new ReadableStream({ type: 'bytes', start(controller) {
      if (bytes.length > 0) controller.enqueue(bytes.slice());
      controller.close();
    } });
  }
}
const blobBytes = Blob.bytesOf;
delete Blob.bytesOf;
publishClass(Blob);

class File extends Blob {
  #name; #modified;
  constructor(parts, name, options = {}) {
    if (arguments.length < 2) throw new TypeError('a File needs its parts and a name');
    super(parts, options);
    this.#name = asScalarText(name);
    this.#modified = Number(options?.lastModified ?? Date.now());
  }
  get name() { return this.#name; }
  get lastModified() { return this.#modified; }
}
publishClass(File);
