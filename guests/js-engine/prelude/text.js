// The Encoding standard's UTF-8 and UTF-16LE and Latin-1 decoders, and base64.

// By encoding, the labels of encoding.spec.whatwg.org §4.2.
const LABELS = new Map(Object.entries({
  'utf-8': 'utf-8 utf8 unicode-1-1-utf-8 unicode11utf8 unicode20utf8 x-unicode20utf8',
  'utf-16le': 'utf-16le utf-16 unicode csunicode iso-10646-ucs-2 ucs-2 unicodefeff',
  'windows-1252': 'windows-1252 ascii us-ascii ansi_x3.4-1968 latin1 l1 csisolatin1 iso-8859-1 iso8859-1 iso88591 '
    + 'iso_8859-1 iso_8859-1:1987 iso-ir-100 cp1252 x-cp1252 cp819 ibm819',
}).flatMap(([encoding, labels]) => labels.split(' ').map((label) => [label, encoding])));
// Windows-1252 in 0x80 to 0x9f.
const WINDOWS_1252 = '\u20ac\x81\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\x8d\u017d\x8f\x90\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\x9d\u017e\u0178';

class TextEncoder {
  get encoding() { return 'utf-8'; }
  encode(input = '') { return host.encode(asText(input)); }
  encodeInto(source, destination) {
    if (!(destination instanceof Uint8Array)) throw new TypeError('encodeInto needs a Uint8Array');
    const text = asScalarText(source);
    let read = 0, written = 0;
    for (const letter of text) {
      const point = letter.codePointAt(0);
      const size = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
      if (written + size > destination.length) break;
      read += letter.length;
      written += size;
    }
    destination.set(host.encode(text.slice(0, read)));
    return { read, written };
  }
}
publishClass(TextEncoder);

class TextDecoder {
  #encoding; #fatal; #ignoreBOM; #held = null; #begun = false;
  constructor(label = 'utf-8', options = {}) {
    this.#encoding = LABELS.get(asText(label).trim().toLowerCase());
    if (!this.#encoding) throw new RangeError(`the encoding ${label} is not supported; use utf-8, utf-16le or latin1`);
    this.#fatal = Boolean(options?.fatal);
    this.#ignoreBOM = Boolean(options?.ignoreBOM);
  }
  get encoding() { return this.#encoding; }
  get fatal() { return this.#fatal; }
  get ignoreBOM() { return this.#ignoreBOM; }
  decode(input, options) {
    let bytes = input === undefined ? new Uint8Array(0) : asBytes(input);
    const more = Boolean(options?.stream);
    if (this.#encoding === 'utf-8' && !more && this.#held === null && !this.#begun) {
      return host.decode(bytes, this.#fatal, this.#ignoreBOM);
    }
    if (this.#held) bytes = joinBytes([this.#held, bytes]);
    const keep = more ? this.#incomplete(bytes) : 0;
    this.#held = keep > 0 ? bytes.slice(bytes.length - keep) : null;
    bytes = keep > 0 ? bytes.subarray(0, bytes.length - keep) : bytes;
    const first = !this.#begun;
    if (bytes.length > 0) this.#begun = true;
    if (!more) this.#begun = false;
    return this.#convert(bytes, this.#ignoreBOM || !first);
  }
  #convert(bytes, keepBom) {
    if (this.#encoding === 'utf-8') return host.decode(bytes, this.#fatal, keepBom);
    let text = '';
    if (this.#encoding === 'windows-1252') {
      for (const byte of bytes) text += byte >= 0x80 && byte < 0xa0 ? WINDOWS_1252[byte - 0x80] : String.fromCharCode(byte);
      return text;
    }
    for (let at = 0; at + 1 < bytes.length; at += 2) text += String.fromCharCode(bytes[at] | bytes[at + 1] << 8);
    if (this.#fatal && (bytes.length % 2 || !text.isWellFormed())) throw new TypeError('the bytes are not valid UTF-16');
    if (bytes.length % 2) text += '\ufffd';
    return (keepBom ? text : text.replace(/^\ufeff/, '')).toWellFormed();
  }
  // How many bytes at the end may be the beginning of a character.
  #incomplete(bytes) {
    const length = bytes.length;
    if (this.#encoding === 'windows-1252') return 0;
    if (this.#encoding === 'utf-16le') {
      const odd = length % 2;
      const high = length - odd >= 2 ? bytes[length - odd - 1] : 0;
      return high >= 0xd8 && high < 0xdc ? odd + 2 : odd;
    }
    for (let back = 1; back <= Math.min(3, length); back++) {
      const byte = bytes[length - back];
      if (byte < 0x80) return 0;
      if (byte >= 0xc0) return begins(byte, bytes[length - back + 1], back) ? back : 0;
    }
    return 0;
  }
}
publishClass(TextDecoder);

// Whether so many bytes can be the beginning of a character: the first says how many there are, and bounds the second.
function begins(first, second, count) {
  if (first < 0xc2 || first > 0xf4 || count >= (first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2)) return false;
  if (count === 1) return true;
  return second >= ({ 0xe0: 0xa0, 0xf0: 0x90 }[first] ?? 0x80) && second <= ({ 0xed: 0x9f, 0xf4: 0x8f }[first] ?? 0xbf);
}

publish('atob', function atob(text) {
  needArguments(arguments, 1, 'atob');
  const decoded = host.atob(asText(text));
  if (decoded === undefined || decoded === null) throw new DOMException('the text is not base64', 'InvalidCharacterError');
  return decoded;
});
publish('btoa', function btoa(text) {
  needArguments(arguments, 1, 'btoa');
  const encoded = host.btoa(asText(text));
  if (encoded === undefined || encoded === null) throw new DOMException('the text has characters past U+00FF', 'InvalidCharacterError');
  return encoded;
});
