// Web Crypto: randomness, digests, and HMAC keys (w3c.github.io/webcrypto). What is missing says so by name.

const KEY = Symbol('key');
class CryptoKey {
  #bytes; #algorithm; #extractable; #usages;
  constructor(token, bytes, algorithm, extractable, usages) {
    if (token !== KEY) throw new TypeError('CryptoKey has no public constructor; use crypto.subtle.importKey');
    this.#bytes = bytes;
    this.#algorithm = algorithm;
    this.#extractable = extractable;
    this.#usages = usages;
  }
  static bytesOf(key, usage) {
    if (!(key instanceof CryptoKey)) throw new TypeError('a CryptoKey is needed');
    if (usage !== undefined && !key.#usages.includes(usage)) throw new DOMException(`the key may not ${usage}`, 'InvalidAccessError');
    return key.#bytes;
  }
  get type() { return 'secret'; }
  get algorithm() { return this.#algorithm; }
  get extractable() { return this.#extractable; }
  get usages() { return this.#usages; }
}
const keyBytes = CryptoKey.bytesOf;
delete CryptoKey.bytesOf;
publishClass(CryptoKey);

const HASHES = { 'SHA-1': 64, 'SHA-256': 64, 'SHA-384': 128, 'SHA-512': 128 };
function hashName(algorithm) {
  const name = asText(typeof algorithm === 'object' && algorithm !== null ? algorithm.name : algorithm).toUpperCase();
  if (!Object.hasOwn(HASHES, name)) {
    throw new DOMException(`${name} is not supported; use SHA-1, SHA-256, SHA-384 or SHA-512`, 'NotSupportedError');
  }
  return name;
}
function needHmac(algorithm) {
  const name = asText(typeof algorithm === 'object' && algorithm !== null ? algorithm.name : algorithm).toUpperCase();
  if (name !== 'HMAC') throw new DOMException(`${name} is not supported; HMAC is`, 'NotSupportedError');
}
const fromBase64Url = (text) => Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));
const toBase64Url = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');

class SubtleCrypto {
  async digest(algorithm, data) {
    return host.digest(hashName(algorithm), asBytes(data)).buffer;
  }
  async importKey(format, data, algorithm, extractable, usages) {
    needHmac(algorithm);
    const hash = hashName(algorithm.hash);
    let bytes;
    if (format === 'raw') bytes = asBytes(data).slice();
    else if (format === 'jwk') bytes = fromBase64Url(asText(data.k));
    else throw new DOMException(`the key format ${format} is not supported; use raw or jwk`, 'NotSupportedError');
    return this.#key(bytes, hash, extractable, usages);
  }
  async generateKey(algorithm, extractable, usages) {
    refuseAtTopLevel('crypto.subtle.generateKey');
    needHmac(algorithm);
    const hash = hashName(algorithm.hash);
    const length = algorithm.length === undefined ? HASHES[hash] : Math.ceil(algorithm.length / 8);
    return this.#key(host.randomBytes(length), hash, extractable, usages);
  }
  #key(bytes, hash, extractable, usages) {
    const list = [...usages];
    const wrong = list.find((usage) => usage !== 'sign' && usage !== 'verify');
    if (wrong || list.length === 0) throw new DOMException('an HMAC key is for sign or verify', 'SyntaxError');
    if (bytes.length === 0) throw new DOMException('the key is empty', 'DataError');
    return new CryptoKey(KEY, bytes, { name: 'HMAC', hash: { name: hash }, length: bytes.length * 8 }, Boolean(extractable), list);
  }
  async exportKey(format, key) {
    const bytes = keyBytes(key);
    if (!key.extractable) throw new DOMException('the key is not extractable', 'InvalidAccessError');
    if (format === 'raw') return bytes.slice().buffer;
    if (format !== 'jwk') throw new DOMException(`the key format ${format} is not supported; use raw or jwk`, 'NotSupportedError');
    const alg = 'HS' + key.algorithm.hash.name.slice(4);
    return { kty: 'oct', k: toBase64Url(bytes), alg, ext: true, key_ops: key.usages };
  }
  async sign(algorithm, key, data) {
    needHmac(algorithm);
    return host.hmac(key.algorithm.hash.name, keyBytes(key, 'sign'), asBytes(data)).buffer;
  }
  async verify(algorithm, key, signature, data) {
    needHmac(algorithm);
    const expected = host.hmac(key.algorithm.hash.name, keyBytes(key, 'verify'), asBytes(data));
    return host.sameBytes(expected, asBytes(signature));
  }
}
for (const name of ['encrypt', 'decrypt', 'deriveBits', 'deriveKey', 'wrapKey', 'unwrapKey']) {
  Object.defineProperty(SubtleCrypto.prototype, name, { configurable: true, writable: true, async value() {
    throw new DOMException(`crypto.subtle.${name} is not supported; bundle a library for it`, 'NotSupportedError');
  } });
}
publishClass(SubtleCrypto);

// The most bytes of one getRandomValues, as the standard has it.
const RANDOM_BYTES_MAX = 65536;
class Crypto {
  #subtle = new SubtleCrypto();
  get subtle() { return this.#subtle; }
  getRandomValues(array) {
    refuseAtTopLevel('crypto.getRandomValues');
    if (!ArrayBuffer.isView(array) || array instanceof DataView || array instanceof Float32Array || array instanceof Float64Array) {
      throw new DOMException('getRandomValues needs an integer typed array', 'TypeMismatchError');
    }
    if (array.byteLength > RANDOM_BYTES_MAX) throw new DOMException(`at most ${RANDOM_BYTES_MAX} bytes at once`, 'QuotaExceededError');
    asBytes(array).set(host.randomBytes(array.byteLength));
    return array;
  }
  randomUUID() {
    refuseAtTopLevel('crypto.randomUUID');
    return host.uuid();
  }
}
const cryptoObject = new Crypto();
publishClass(Crypto);
publish('crypto', cryptoObject);
