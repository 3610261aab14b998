// console (console.spec.whatwg.org): each call is one log line of the request that runs.

const counts = new Map();
const clocks = new Map();
const LABELS_MAX = 1000;
let groupIndent = '';

function write(level, args) {
  const text = format(args);
  host.log(current, level, groupIndent === '' ? text : groupIndent + text.replaceAll('\n', '\n' + groupIndent));
}
function elapsed(label) {
  return `${label}: ${(host.monotonic() - clocks.get(label)).toFixed(3)}ms`;
}

const console = {
  debug: (...args) => write(0, args),
  trace: (...args) => write(0, [`Trace: ${format(args)}\n${new Error().stack.split('\n').slice(1).join('\n').trimEnd()}`]),
  log: (...args) => write(1, args),
  info: (...args) => write(1, args),
  dir: (value) => write(1, [value]),
  dirxml: (...args) => write(1, args),
  table: (value) => write(1, [value]),
  warn: (...args) => write(2, args),
  error: (...args) => write(3, args),
  assert(condition, ...args) {
    if (!condition) write(3, args.length === 0 ? ['Assertion failed'] : ['Assertion failed:', ...args]);
  },
  group(...args) {
    if (args.length > 0) write(1, args);
    if (groupIndent.length < 40) groupIndent += '  ';
  },
  groupCollapsed: (...args) => console.group(...args),
  groupEnd() { groupIndent = groupIndent.slice(2); },
  clear() {},
  count(label = 'default') {
    const count = (counts.get(label) ?? 0) + 1;
    if (counts.size < LABELS_MAX) counts.set(label, count);
    write(1, [`${label}: ${count}`]);
  },
  countReset(label = 'default') { counts.delete(label); },
  time(label = 'default') {
    if (clocks.size < LABELS_MAX) clocks.set(label, host.monotonic());
  },
  timeLog(label = 'default', ...args) {
    if (clocks.has(label)) write(1, [elapsed(label), ...args]);
  },
  timeEnd(label = 'default') {
    if (clocks.has(label)) write(1, [elapsed(label)]);
    clocks.delete(label);
  },
};
publish('console', console);
