// FormData (xhr.spec.whatwg.org §5) and its encoding as multipart/form-data (RFC 7578), both ways.

// A form has few fields; a body of millions of them is an attack.
const FIELDS_MAX = 10000;

class FormData {
  #list = [];
  constructor(form) {
    if (form !== undefined) throw new TypeError('FormData takes no argument here: there is no form element');
  }
  static list(form) { return form.#list; }
  #value(value, filename) {
    if (!(value instanceof Blob)) {
      if (filename !== undefined) throw new TypeError('only a Blob or a File has a file name');
      return asScalarText(value);
    }
    if (value instanceof File && filename === undefined) return value;
    return new File([value], filename ?? 'blob', { type: value.type });
  }
  append(name, value, filename) {
    needArguments(arguments, 2, 'append');
    this.#list.push([asScalarText(name), this.#value(value, filename)]);
  }
  set(name, value, filename) {
    needArguments(arguments, 2, 'set');
    name = asScalarText(name);
    const entry = [name, this.#value(value, filename)];
    const at = this.#list.findIndex((pair) => pair[0] === name);
    if (at < 0) this.#list.push(entry);
    else {
      this.#list[at] = entry;
      this.#list = this.#list.filter((pair, index) => index <= at || pair[0] !== name);
    }
  }
  delete(name) {
    needArguments(arguments, 1, 'delete');
    this.#list = this.#list.filter((pair) => pair[0] !== asScalarText(name));
  }
  get(name) { return this.#list.find((pair) => pair[0] === asScalarText(name))?.[1] ?? null; }
  getAll(name) { return this.#list.filter((pair) => pair[0] === asScalarText(name)).map((pair) => pair[1]); }
  has(name) { return this.#list.some((pair) => pair[0] === asScalarText(name)); }
}
const formList = FormData.list;
defineIterable(FormData, FormData.list, 'FormData');
delete FormData.list;
publishClass(FormData);

function encodeFormData(form, boundary) {
  const lines = (text) => text.replace(/\r\n?|\n/g, '\r\n');
  const quote = (text) => text.replaceAll('\r', '%0D').replaceAll('\n', '%0A').replaceAll('"', '%22');
  const pieces = [];
  for (const [name, value] of formList(form)) {
    const head = `--${boundary}\r\ncontent-disposition: form-data; name="${quote(lines(name))}"`;
    if (typeof value === 'string') {
      pieces.push(host.encode(`${head}\r\n\r\n${lines(value)}\r\n`));
    } else {
      const type = value.type || 'application/octet-stream';
      pieces.push(host.encode(`${head}; filename="${quote(value.name)}"\r\ncontent-type: ${type}\r\n\r\n`));
      pieces.push(blobBytes(value), host.encode('\r\n'));
    }
  }
  pieces.push(host.encode(`--${boundary}--\r\n`));
  return joinBytes(pieces);
}

function parseFormData(bytes, type) {
  const form = new FormData();
  if (/^application\/x-www-form-urlencoded\b/i.test(type)) {
    for (const [name, value] of parseForm(host.decode(bytes, false, true))) form.append(name, value);
    return form;
  }
  const boundary = /^multipart\/form-data\b.*?;\s*boundary=(?:"([^"]+)"|([^;\s]+))/i.exec(type);
  if (!boundary) throw new TypeError('formData() needs the content type multipart/form-data or application/x-www-form-urlencoded');
  const mark = host.encode('--' + (boundary[1] ?? boundary[2]));
  let at = indexOfBytes(bytes, mark, 0);
  for (let fields = 0; at >= 0; fields++) {
    at += mark.length;
    if (bytes[at] === 0x2d && bytes[at + 1] === 0x2d) return form;
    if (fields >= FIELDS_MAX) throw new TypeError(`the form has more than ${FIELDS_MAX} fields`);
    const next = indexOfBytes(bytes, mark, at);
    const headEnd = indexOfBytes(bytes, BLANK_LINE, at);
    if (next < 0 || headEnd < 0 || headEnd > next) break;
    appendPart(form, host.decode(bytes.subarray(at + 2, headEnd), false, true), bytes.subarray(headEnd + 4, next - 2));
    at = next;
  }
  throw new TypeError('the form data is malformed or cut off');
}

const BLANK_LINE = host.encode('\r\n\r\n');

function appendPart(form, head, content) {
  const disposition = /^content-disposition:\s*form-data;(.*)$/im.exec(head)?.[1] ?? '';
  const parameter = (key) => new RegExp(`(?:^|[;\\s])${key}="([^"]*)"`, 'i').exec(disposition)?.[1]
    ?.replace(/%0d/gi, '\r').replace(/%0a/gi, '\n').replace(/%22/g, '"');
  const name = parameter('name');
  if (name === undefined) throw new TypeError('a part of the form data has no name');
  const filename = parameter('filename');
  if (filename === undefined) return form.append(name, host.decode(content, false, false));
  const type = /^content-type:\s*(.*?)\s*$/im.exec(head)?.[1] ?? 'text/plain';
  form.append(name, new File([content], filename, { type }));
}

function indexOfBytes(bytes, wanted, from) {
  for (let at = bytes.indexOf(wanted[0], from); at >= 0; at = bytes.indexOf(wanted[0], at + 1)) {
    let same = 1;
    while (same < wanted.length && bytes[at + same] === wanted[same]) same++;
    if (same === wanted.length) return at;
  }
  return -1;
}
