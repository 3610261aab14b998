// fetch: one action out, and the answer's head, pieces or failure as events in.

let lastOp = 0;
// Operations that have no answer yet, by number.
const fetches = new Map();
const REDIRECTS = { follow: 0, error: 1, manual: 2 };

publish('fetch', function fetch(input, init) {
  try {
    refuseAtTopLevel('fetch');
    const request = new Request(input, init);
    // A browser's would come along with the headers of its request, and bodies are not decoded here. The standard does not
    // let a script set it either. One that asks for no encoding may be part of a signature.
    if (request.headers.get('accept-encoding')?.toLowerCase() !== 'identity') request.headers.delete('accept-encoding');
    const signal = requestSignal(request);
    if (signal?.aborted) return Promise.reject(signal.reason);
    return startFetch(request, signal);
  } catch (error) {
    return Promise.reject(error);
  }
});

function startFetch(request, signal) {
  const op = ++lastOp;
  const { method, url, redirect } = request;
  const head = [method, url, requestLines(request)];
  const mode = REDIRECTS[redirect];
  const content = takeBody(request);
  const key = op * 2 + 1;
  return new Promise((resolve, reject) => {
    const entry = { url, owner: current, resolve, reject, forget: null };
    fetches.set(op, entry);
    if (content === null) host.fetch(op, current, head, mode, 0, null);
    else if (typeof content === 'string' || content instanceof Uint8Array) host.fetch(op, current, head, mode, 1, content);
    else if (content instanceof Source) {
      content.release();
      host.fetch(op, current, head, mode, 3, content.key);
    } else {
      host.fetch(op, current, head, mode, 2, null);
      pump(key, content);
    }
    if (signal) {
      entry.forget = onAbort(signal, () => {
        host.abortFetch(op);
        stopPump(key, signal.reason);
        sources.get(key)?.broken(signal.reason);
        fetches.delete(op);
        reject(signal.reason);
      });
    }
  });
}

function onHead(op, status, url, lines, kind, bytes) {
  const entry = fetches.get(op);
  if (!entry) return;
  fetches.delete(op);
  current = entry.owner;
  const content = kind === 0 ? null : kind === 1 ? bytes : new Source(op * 2 + 1);
  if (kind === 2) content.over = entry.forget;
  else entry.forget?.();
  entry.resolve(fetchedResponse(status, url, entry.url, lines, content));
}

function onFetchFailed(op, message) {
  const entry = fetches.get(op);
  if (!entry) return;
  fetches.delete(op);
  current = entry.owner;
  entry.forget?.();
  stopPump(op * 2 + 1, new TypeError(message));
  entry.reject(new TypeError(message));
}

// Capabilities of the host, by name; the payload's encoding is theirs.
const calls = new Map();
function callHost(capability, payload) {
  refuseAtTopLevel(capability);
  const op = ++lastOp;
  return new Promise((resolve, reject) => {
    calls.set(op, { owner: current, resolve, reject });
    host.call(op, current, capability, payload);
  });
}
function onCallResult(op, ok, payload) {
  const entry = calls.get(op);
  if (!entry) return;
  calls.delete(op);
  current = entry.owner;
  if (ok) entry.resolve(payload);
  else {
    // What kind of failure, and what to do about it, on a line each.
    const [kind, message] = host.decode(payload, false, true).split('\n', 2);
    entry.reject(Object.assign(new Error(message), { kind }));
  }
}
