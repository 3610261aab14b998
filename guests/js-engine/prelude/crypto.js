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
// What a key's algorithm says of its digest.
function hmacHash(algorithm) {
  needHmac(algorithm);
  if (algorithm.hash === undefined) throw new TypeError("HMAC needs a hash: { name: 'HMAC', hash: 'SHA-256' }");
  return hashName(algorithm.hash);
}
function needHmac(algorithm) {
  const name = asText(typeof algorithm === 'object' && algorithm !== null ? algorithm.name : algorithm).toUpperCase();
  if (name !== 'HMAC') throw new DOMException(`${name} is not supported; HMAC is`, 'NotSupportedError');
}
const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const fromBase64Url = (text) => fromBase64(text.replaceAll('-', '+').replaceAll('_', '/'));
const toBase64Url = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');

const jwkName = (hash) => 'HS' + hash.slice(4);

const USAGES = ['encrypt', 'decrypt', 'sign', 'verify', 'deriveKey', 'deriveBits', 'wrapKey', 'unwrapKey'];
function usagesOf(usages) {
  const list = [...new Set(usages)];
  const unknown = list.find((usage) => !USAGES.includes(usage));
  if (unknown !== undefined) throw new TypeError(`${asText(unknown)} is not a usage of a key`);
  const wrong = list.some((usage) => usage !== 'sign' && usage !== 'verify');
  if (wrong) throw new DOMException('an HMAC key is for sign or verify', 'SyntaxError');
  return list;
}

// The bytes of a JSON Web Key, which may not be meant for anything else (HMAC's import key in Web Crypto; RFC 7517 §4).
function jwkBytes(jwk, hash, extractable, usages) {
  if (typeof jwk !== 'object' || jwk === null || isBufferSource(jwk)) throw new TypeError('a key as jwk is an object');
  const need = (right, what) => {
    if (!right) throw new DOMException(`the key's ${what}`, 'DataError');
  };
  const { kty, k, alg, use, key_ops: operations, ext } = jwk;
  need(kty === 'oct', 'kty is not oct');
  // Padding should not be there, and is taken elsewhere all the same.
  need(typeof k === 'string' && /^[\w-]+={0,2}$/.test(k) && k.replace(/=+$/, '').length % 4 !== 1, 'k is not base64url');
  need(alg === undefined || alg === jwkName(hash), `alg is not ${jwkName(hash)}`);
  need(use === undefined || use === 'sig' || usages.length === 0, 'use is not sig');
  need(operations === undefined || Array.isArray(operations) && new Set(operations).size === operations.length
    && usages.every((usage) => operations.includes(usage)), `key_ops are not those asked for: ${usages.join(', ')}`);
  need(ext === undefined || ext === true || !extractable, 'ext says that it may not be extractable');
  return fromBase64Url(k.replace(/=+$/, ''));
}

class SubtleCrypto {
  async digest(algorithm, data) {
    return host.digest(hashName(algorithm), asBytes(data)).buffer;
  }
  async importKey(format, data, algorithm, extractable, usages) {
    const hash = hmacHash(algorithm);
    const list = usagesOf(usages);
    let bytes;
    if (format === 'raw') bytes = asBytes(data).slice();
    else if (format === 'jwk') bytes = jwkBytes(data, hash, extractable, list);
    else throw new DOMException(`the key format ${format} is not supported; use raw or jwk`, 'NotSupportedError');
    if (bytes.length === 0) throw new DOMException('the key is empty', 'DataError');
    const { length } = algorithm;
    if (length !== undefined && Number(length) !== bytes.length * 8) {
      throw new DOMException(`the key has ${bytes.length * 8} bits, not ${length}`, 'DataError');
    }
    return this.#key(bytes, hash, extractable, list);
  }
  async generateKey(algorithm, extractable, usages) {
    refuseAtTopLevel('crypto.subtle.generateKey');
    const hash = hmacHash(algorithm);
    const list = usagesOf(usages);
    const length = algorithm.length === undefined ? HASHES[hash] : Math.ceil(algorithm.length / 8);
    if (!(length > 0)) throw new DOMException('a key needs a length', 'OperationError');
    return this.#key(host.randomBytes(length), hash, extractable, list);
  }
  #key(bytes, hash, extractable, usages) {
    if (usages.length === 0) throw new DOMException('a key needs a usage: sign or verify', 'SyntaxError');
    const algorithm = { name: 'HMAC', hash: { name: hash }, length: bytes.length * 8 };
    return new CryptoKey(KEY, bytes, algorithm, Boolean(extractable), usages);
  }
  async exportKey(format, key) {
    const bytes = keyBytes(key);
    if (!key.extractable) throw new DOMException('the key is not extractable', 'InvalidAccessError');
    if (format === 'raw') return bytes.slice().buffer;
    if (format !== 'jwk') throw new DOMException(`the key format ${format} is not supported; use raw or jwk`, 'NotSupportedError');
    return { kty: 'oct', k: toBase64Url(bytes), alg: jwkName(key.algorithm.hash.name), ext: true, key_ops: key.usages };
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
