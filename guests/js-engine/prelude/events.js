// DOM events without a tree, exceptions, and abort signals (dom.spec.whatwg.org §2, §3; webidl.spec.whatwg.org §2.8.1).

const EXCEPTION_CODES = {
  IndexSizeError: 1, HierarchyRequestError: 3, WrongDocumentError: 4, InvalidCharacterError: 5,
  NoModificationAllowedError: 7, NotFoundError: 8, NotSupportedError: 9, InUseAttributeError: 10, InvalidStateError: 11,
  SyntaxError: 12, InvalidModificationError: 13, NamespaceError: 14, InvalidAccessError: 15, TypeMismatchError: 17,
  SecurityError: 18, NetworkError: 19, AbortError: 20, URLMismatchError: 21, QuotaExceededError: 22, TimeoutError: 23,
  InvalidNodeTypeError: 24, DataCloneError: 25,
};

class DOMException extends Error {
  #name;
  constructor(message = '', name = 'Error') {
    super(asText(message));
    this.#name = asText(name);
  }
  get name() { return this.#name; }
  get code() { return EXCEPTION_CODES[this.#name] ?? 0; }
}
publishClass(DOMException);
for (const [name, code] of Object.entries(EXCEPTION_CODES)) {
  const constant = name.replace(/Error$/, '').replace(/([a-z])([A-Z])/g, '$1_$2').toUpperCase() + '_ERR';
  Object.defineProperty(DOMException, constant, { value: code, enumerable: true });
  Object.defineProperty(DOMException.prototype, constant, { value: code, enumerable: true });
}

class Event {
  #type; #bubbles; #cancelable; #composed; #prevented = false; #stamp = host.monotonic();
  #stopped = false; #target = null; #dispatching = false;
  constructor(type, init = {}) {
    if (arguments.length === 0) throw new TypeError('an Event needs a type');
    this.#type = asText(type);
    this.#bubbles = Boolean(init?.bubbles);
    this.#cancelable = Boolean(init?.cancelable);
    this.#composed = Boolean(init?.composed);
  }
  get type() { return this.#type; }
  get target() { return this.#target; }
  get currentTarget() { return this.#dispatching ? this.#target : null; }
  get srcElement() { return this.#target; }
  get eventPhase() { return this.#dispatching ? 2 : 0; }
  get bubbles() { return this.#bubbles; }
  get cancelable() { return this.#cancelable; }
  get composed() { return this.#composed; }
  get defaultPrevented() { return this.#prevented; }
  get returnValue() { return !this.#prevented; }
  get timeStamp() { return this.#stamp; }
  get isTrusted() { return false; }
  get cancelBubble() { return this.#stopped; }
  composedPath() { return this.#dispatching ? [this.#target] : []; }
  preventDefault() { if (this.#cancelable) this.#prevented = true; }
  stopPropagation() {}
  stopImmediatePropagation() { this.#stopped = true; }

  static deliver(event, target, listeners) {
    if (event.#dispatching) throw new DOMException('the event is being dispatched already', 'InvalidStateError');
    event.#target = target;
    event.#dispatching = true;
    for (const listener of [...listeners]) {
      if (listener.removed) continue;
      if (listener.once) listener.remove();
      try {
        if (typeof listener.callback === 'function') listener.callback.call(target, event);
        else listener.callback.handleEvent(event);
      } catch (error) {
        reportError(error);
      }
      if (event.#stopped) break;
    }
    event.#dispatching = false;
    event.#stopped = false;
    return !event.#prevented;
  }
}
const deliver = Event.deliver;
delete Event.deliver;
publishClass(Event);
for (const [phase, value] of Object.entries({ NONE: 0, CAPTURING_PHASE: 1, AT_TARGET: 2, BUBBLING_PHASE: 3 })) {
  Object.defineProperty(Event, phase, { value, enumerable: true });
  Object.defineProperty(Event.prototype, phase, { value, enumerable: true });
}

class CustomEvent extends Event {
  #detail;
  constructor(type, init = {}) {
    super(type, init);
    this.#detail = init?.detail ?? null;
  }
  get detail() { return this.#detail; }
}
publishClass(CustomEvent);

class EventTarget {
  #listeners = null;
  addEventListener(type, callback, options) {
    if (callback === null || callback === undefined) return;
    if (typeof callback !== 'function' && typeof callback !== 'object') throw new TypeError('a listener is a function or an object');
    type = asText(type);
    const capture = typeof options === 'boolean' ? options : Boolean(options?.capture);
    const signal = typeof options === 'object' && options !== null ? options.signal : undefined;
    if (signal !== undefined && !(signal instanceof AbortSignal)) throw new TypeError('options.signal is not an AbortSignal');
    if (signal?.aborted) return;
    this.#listeners ??= new Map();
    const list = this.#listeners.get(type) ?? [];
    if (list.some((known) => known.callback === callback && known.capture === capture)) return;
    const entry = { callback, capture, once: Boolean(options?.once), removed: false, remove: () => {
      entry.removed = true;
      const at = list.indexOf(entry);
      if (at >= 0) list.splice(at, 1);
    } };
    list.push(entry);
    this.#listeners.set(type, list);
    signal?.addEventListener('abort', entry.remove, { once: true });
  }
  removeEventListener(type, callback, options) {
    const capture = typeof options === 'boolean' ? options : Boolean(options?.capture);
    const list = this.#listeners?.get(asText(type)) ?? [];
    list.find((known) => known.callback === callback && known.capture === capture)?.remove();
  }
  dispatchEvent(event) {
    if (!(event instanceof Event)) throw new TypeError('dispatchEvent needs an Event');
    return deliver(event, this, this.#listeners?.get(event.type) ?? []);
  }
}
publishClass(EventTarget);

const SIGNAL = Symbol('signal');
class AbortSignal extends EventTarget {
  #aborted = false; #reason = undefined; #steps = [];
  #handler = null; #listener = null;
  constructor(token) {
    if (token !== SIGNAL) throw new TypeError('AbortSignal has no public constructor; use AbortController');
    super();
  }
  get aborted() { return this.#aborted; }
  get reason() { return this.#reason; }
  get onabort() { return this.#handler; }
  // It takes its place among the listeners when it is set first.
  set onabort(handler) {
    this.#handler = typeof handler === 'function' ? handler : null;
    if (this.#handler === null || this.#listener !== null) return;
    this.#listener = (event) => this.#handler?.call(this, event);
    this.addEventListener('abort', this.#listener);
  }
  throwIfAborted() { if (this.#aborted) throw this.#reason; }

  static abort(reason) {
    const signal = new AbortSignal(SIGNAL);
    abortSignal(signal, reason);
    return signal;
  }
  static timeout(milliseconds) {
    if (!(milliseconds >= 0)) throw new TypeError('AbortSignal.timeout needs a number of milliseconds, 0 or more');
    const signal = new AbortSignal(SIGNAL);
    setTimeout(() => abortSignal(signal, new DOMException('the time limit has passed', 'TimeoutError')), milliseconds);
    return signal;
  }
  static any(signals) {
    const all = [...signals];
    const signal = new AbortSignal(SIGNAL);
    const first = all.find((one) => one.aborted);
    if (first) abortSignal(signal, first.reason);
    else for (const one of all) onAbort(one, () => abortSignal(signal, one.reason));
    return signal;
  }
  static trigger(signal, reason) {
    if (signal.#aborted) return;
    signal.#aborted = true;
    signal.#reason = reason === undefined ? new DOMException('the operation was aborted', 'AbortError') : reason;
    const steps = signal.#steps;
    signal.#steps = [];
    for (const step of steps) step();
    signal.dispatchEvent(new Event('abort'));
  }
  static listen(signal, step) {
    if (signal.#aborted) step();
    else signal.#steps.push(step);
    return () => { signal.#steps = signal.#steps.filter((known) => known !== step); };
  }
}
const abortSignal = AbortSignal.trigger;
// Runs `step` once the signal aborts; answers with the way to forget it.
const onAbort = AbortSignal.listen;
delete AbortSignal.trigger;
delete AbortSignal.listen;
publishClass(AbortSignal);

class AbortController {
  #signal = new AbortSignal(SIGNAL);
  get signal() { return this.#signal; }
  abort(reason) { abortSignal(this.#signal, reason); }
}
publishClass(AbortController);

publish('reportError', function reportError(error) {
  host.log(current, 3, 'uncaught ' + inspect(error));
});
