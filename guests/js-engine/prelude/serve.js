// Requests: from the event to the response, and to the end of everything that the function asked to wait for.

let handler = null;
let env = null;
// Requests that are not done, by number.
const active = new Map();

class ExecutionContext {
  #id;
  constructor(id) { this.#id = id; }
  waitUntil(promise) {
    const entry = active.get(this.#id);
    if (!entry) throw new TypeError('waitUntil comes too late: the request is done');
    entry.waits++;
    const id = this.#id;
    const finish = () => release(id);
    Promise.resolve(promise).then(finish, (error) => {
      host.log(id, 3, 'waitUntil: ' + inspect(error));
      finish();
    });
  }
  passThroughOnException() {}
}
publishClass(ExecutionContext);

// One thing that the request waited for is over.
function release(id) {
  const entry = active.get(id);
  if (entry && --entry.waits === 0) {
    active.delete(id);
    host.done(id);
    sources.get(id * 2)?.release();
  }
}

function onRequest(id, method, url, headers, kind, bytes) {
  current = id;
  const request = new Request(INCOMING, { method, url, headers });
  if (kind !== 0) setBody(request, kind === 1 ? bytes : new Source(id * 2));
  active.set(id, { waits: 1, request, controller: null, answered: false });
  let result;
  try {
    result = handler(request, env, new ExecutionContext(id));
  } catch (error) {
    return fail(id, error);
  }
  if (result instanceof Response) return answer(id, result);
  Promise.resolve(result).then((response) => answer(id, response), (error) => fail(id, error));
}

function fail(id, error) {
  if (!active.delete(id)) return;
  host.failed(id, error);
}

function answer(id, response) {
  const entry = active.get(id);
  if (!entry) return;
  let content;
  try {
    if (!(response instanceof Response)) throw new TypeError(`fetch has to return a Response, not ${inspect(response, DEPTH_MAX)}`);
    if (response.status === 0) throw new TypeError('the response is an error response');
    content = takeBody(response);
  } catch (error) {
    return fail(id, error);
  }
  entry.answered = true;
  const { status } = response;
  const lines = headersToLines(response.headers);
  if (content === null) host.respond(id, status, lines, 0, null);
  else if (typeof content === 'string' || content instanceof Uint8Array) host.respond(id, status, lines, 1, content);
  else if (content instanceof Source) {
    content.release();
    host.respond(id, status, lines, 3, content.key);
  } else {
    host.respond(id, status, lines, 2, null);
    pump(id * 2, content).then((broken) => {
      if (broken !== null) host.log(id, 3, 'response body: ' + inspect(broken.error));
      release(id);
    });
    return;
  }
  release(id);
}

// The signal of an incoming request, made when somebody asks: it aborts when the client goes away.
function incomingSignal(request) {
  const controller = new AbortController();
  for (const entry of active.values()) if (entry.request === request) entry.controller = controller;
  return controller.signal;
}

function onCancel(id) {
  const entry = active.get(id);
  if (!entry) return;
  current = id;
  const reason = new DOMException('the client has gone away', 'AbortError');
  entry.controller?.abort(reason);
  stopPump(id * 2, reason);
}

// After each turn: a request that has no answer while nothing at all is under way will never have one.
function onSettled() {
  current = 0;
  if (active.size === 0 || fetches.size > 0 || timers.size > 0 || calls.size > 0 || sinks.size > 0) return;
  for (const source of sources.values()) if (source.waiting) return;
  for (const [id, entry] of active) {
    if (entry.answered || entry.controller) continue;
    fail(id, new Error('the function will never answer: it waits for a promise that nothing can settle'));
  }
}

// Takes the module and finds what answers requests in it.
function start(module, environment, granted) {
  loading = false;
  bindState(environment, granted);
  env = Object.freeze(environment);
  const chosen = module.default;
  if (typeof chosen === 'function' && !/^class\b/.test(Function.prototype.toString.call(chosen))) handler = chosen;
  else if (typeof chosen === 'object' && chosen !== null && typeof chosen.fetch === 'function') handler = (...args) => chosen.fetch(...args);
  else if (typeof module.fetch === 'function') handler = module.fetch;
  else throw new TypeError('the module has no handler; write: export default { async fetch(request, env, ctx) { ... } }');
}

// Serves two requests before anybody sends one. QuickJS makes what is built in when it is first used, and finds the
// shapes of objects again that it has made once: in the snapshot it is done for every instance.
function warm() {
  const serve = [
    () => new Response('', { headers: { 'content-type': 'text/plain' } }),
    async (request) => {
      const { pathname, searchParams } = new URL(request.url);
      const text = await request.text();
      const answer = { pathname, q: searchParams.get('q'), type: request.headers.get('content-type'), text };
      return Response.json(answer, { status: 200, headers: { 'x-warm': 'yes' } });
    },
  ];
  const headers = 'host: localhost\naccept: */*\n';
  for (const [id, serving] of serve.entries()) {
    handler = serving;
    onRequest(id, id === 0 ? 'GET' : 'POST', 'http://localhost/path?q=1', headers, id, new Uint8Array([123, 125]));
  }
  handler = null;
  current = 0;
}

// What those left behind would be in every instance.
function warmed() {
  for (const left of [active, sources, sinks, fetches, timers, calls]) {
    if (left.size !== 0) throw new Error('a request of the engine itself is not done');
  }
}

loading = true;
return {
  warm,
  warmed,
  start,
  request: onRequest,
  chunk(key, bytes) {
    const source = sources.get(key);
    if (!source) return;
    current = source.owner;
    source.chunk(bytes);
  },
  end(key) {
    const source = sources.get(key);
    if (!source) return;
    current = source.owner;
    source.end();
  },
  broken(key, message) {
    const source = sources.get(key);
    if (!source) return;
    current = source.owner;
    source.broken(new TypeError(message));
  },
  head: onHead,
  fetchFailed: onFetchFailed,
  timer: onTimer,
  drained,
  cancel: onCancel,
  callResult: onCallResult,
  settled: onSettled,
};
