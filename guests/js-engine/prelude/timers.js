// Timers (html.spec.whatwg.org §8.6). The host keeps the time; an interval is a timer that is set again.

const timers = new Map();
// The most that setTimeout's number takes, as in browsers.
const AFTER_MS_MAX = 0x7fffffff;

function startTimer(callback, after, args, repeat) {
  refuseAtTopLevel(repeat ? 'setInterval' : 'setTimeout');
  if (typeof callback !== 'function') throw new TypeError('a timer needs a function');
  const op = ++lastOp;
  const ms = Math.min(Math.max(Math.trunc(Number(after)) || 0, repeat ? 1 : 0), AFTER_MS_MAX);
  timers.set(op, { callback, ms, args, repeat, owner: current });
  host.setTimer(op, current, ms);
  return op;
}
function stopTimer(op) {
  if (timers.delete(op)) host.clearTimer(op);
}
function onTimer(op) {
  const timer = timers.get(op);
  if (!timer) return;
  current = timer.owner;
  if (timer.repeat) host.setTimer(op, timer.owner, timer.ms);
  else timers.delete(op);
  try {
    timer.callback(...timer.args);
  } catch (error) {
    reportError(error);
  }
}
publish('setTimeout', function setTimeout(callback, after, ...args) { return startTimer(callback, after, args, false); });
publish('setInterval', function setInterval(callback, after, ...args) { return startTimer(callback, after, args, true); });
publish('clearTimeout', function clearTimeout(op) { stopTimer(op); });
publish('clearInterval', function clearInterval(op) { stopTimer(op); });
if (typeof globalThis.queueMicrotask !== 'function') {
  publish('queueMicrotask', function queueMicrotask(callback) {
    if (typeof callback !== 'function') throw new TypeError('queueMicrotask needs a function');
    Promise.resolve().then(() => {
      try {
        callback();
      } catch (error) {
        reportError(error);
      }
    });
  });
}
