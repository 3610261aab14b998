// Values as text for the log: short, one line where it fits, and never calling the function's own code except getters' names.

const DEPTH_MAX = 4;
const ITEMS_MAX = 100;
// More than a line of the log keeps: the host hides secrets before it cuts, and would not know half of one.
const TEXT_MAX = 60000;

function inspect(value, depth = 0, seen = []) {
  switch (typeof value) {
    case 'string': {
      const text = value.length > TEXT_MAX ? value.slice(0, TEXT_MAX) + '…' : value;
      return depth === 0 ? text : `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'").replaceAll('\n', '\\n')}'`;
    }
    case 'bigint': return `${value}n`;
    case 'symbol': return value.toString();
    case 'function': return inspectFunction(value);
    case 'object': return value === null ? 'null' : inspectObject(value, depth, seen);
    default: return Object.is(value, -0) ? '-0' : String(value);
  }
}

function inspectFunction(value) {
  const kind = /^class\b/.test(Function.prototype.toString.call(value)) ? 'class' : 'Function';
  const name = Object.getOwnPropertyDescriptor(value, 'name')?.value;
  return typeof name === 'string' && name !== '' ? `[${kind}: ${name}]` : `[${kind} (anonymous)]`;
}

function inspectObject(value, depth, seen) {
  if (seen.includes(value)) return '[Circular]';
  if (value instanceof Error) return inspectError(value, depth, seen);
  const name = className(value);
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'Invalid Date' : value.toISOString();
  if (value instanceof RegExp) return RegExp.prototype.toString.call(value);
  if (value instanceof Promise) return 'Promise {}';
  if (depth >= DEPTH_MAX) return Array.isArray(value) ? '[Array]' : `[${name || 'Object'}]`;
  const below = (item) => inspect(item, depth + 1, [...seen, value]);
  if (Array.isArray(value)) return wrap('', '[', listed(value.length, (at) => (at in value ? below(value[at]) : '<empty>')), ']');
  if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
    return wrap(`${name}(${value.length}) `, '[', listed(value.length, (at) => String(value[at])), ']');
  }
  if (value instanceof ArrayBuffer) return `ArrayBuffer { byteLength: ${value.byteLength} }`;
  if (value instanceof Map) return wrap(`Map(${value.size}) `, '{', limit([...value].slice(0, ITEMS_MAX).map(([k, v]) => `${below(k)} => ${below(v)}`), value.size), '}');
  if (value instanceof Set) return wrap(`Set(${value.size}) `, '{', limit([...value].slice(0, ITEMS_MAX).map(below), value.size), '}');
  if (value instanceof URL) return `URL { href: '${value.href}' }`;
  if (value instanceof Headers) return wrap('Headers ', '{', [...value].map(([k, v]) => `${k}: ${inspect(v, 1)}`), '}');
  if (value instanceof Request) return `Request { method: '${value.method}', url: '${value.url}' }`;
  if (value instanceof Response) return `Response { status: ${value.status} }`;
  return wrap(name && name !== 'Object' ? `${name} ` : '', '{', properties(value, below), '}');
}

function className(value) {
  const prototype = Object.getPrototypeOf(value);
  if (prototype === null) return '[Object: null prototype]';
  const constructor = Object.getOwnPropertyDescriptor(prototype, 'constructor')?.value;
  return typeof constructor === 'function' ? Object.getOwnPropertyDescriptor(constructor, 'name')?.value ?? '' : '';
}

function properties(value, below) {
  const keys = Object.keys(value);
  const shown = keys.slice(0, ITEMS_MAX).map((key) => {
    const property = Object.getOwnPropertyDescriptor(value, key);
    const label = /^[\p{L}_$][\p{L}\p{N}_$]*$/u.test(key) ? key : `'${key}'`;
    if (property && property.get) return `${label}: [Getter]`;
    return `${label}: ${below(property?.value)}`;
  });
  return limit(shown, keys.length);
}

function inspectError(error, depth, seen) {
  const head = `${error.name}: ${error.message}`;
  const stack = typeof error.stack === 'string' ? error.stack.trimEnd() : '';
  let text = stack === '' ? head : stack.startsWith(head) ? stack : `${head}\n${stack}`;
  if (error.cause !== undefined && depth < DEPTH_MAX) text += `\n  [cause]: ${inspect(error.cause, depth + 1, [...seen, error])}`;
  return text;
}

function listed(length, item) {
  const shown = [];
  for (let at = 0; at < Math.min(length, ITEMS_MAX); at++) shown.push(item(at));
  return limit(shown, length);
}

function limit(shown, total) {
  return total > ITEMS_MAX ? [...shown, `... ${total - ITEMS_MAX} more`] : shown;
}

function wrap(prefix, open, items, close) {
  if (items.length === 0) return `${prefix}${open}${close}`;
  const line = `${prefix}${open} ${items.join(', ')} ${close}`;
  if (line.length <= 76 && !line.includes('\n')) return line;
  return `${prefix}${open}\n${items.map((item) => '  ' + item.replaceAll('\n', '\n  ')).join(',\n')}\n${close}`;
}

// %s, %d, %i, %f, %j, %o, %O and %c, as the Console standard §2.2.1 has them.
function format(args) {
  let at = 1;
  if (typeof args[0] !== 'string' || args.length === 1 || !args[0].includes('%')) return args.map((value) => inspect(value)).join(' ');
  const text = args[0].replace(/%[sdifjoOc%]/g, (mark) => {
    if (mark === '%%') return '%';
    if (at >= args.length) return mark;
    const value = args[at++];
    switch (mark) {
      case '%s': return typeof value === 'string' ? value : inspect(value, 1);
      case '%d': return typeof value === 'symbol' ? 'NaN' : String(Number(value));
      case '%i': return typeof value === 'symbol' ? 'NaN' : String(parseInt(value, 10));
      case '%f': return typeof value === 'symbol' ? 'NaN' : String(parseFloat(value));
      case '%j': return JSON.stringify(value) ?? 'undefined';
      case '%c': return '';
      default: return inspect(value, 1);
    }
  });
  return [text, ...args.slice(at).map((value) => inspect(value))].join(' ');
}
