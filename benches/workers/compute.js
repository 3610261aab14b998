// A script that computes: recursion, number crunching, objects, strings and JSON. The same file runs in Marram and in
// workerd.
function fib(n) {
  return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

function sieve(limit) {
  const composite = new Uint8Array(limit);
  let primes = 0;
  for (let i = 2; i < limit; i++) {
    if (composite[i]) continue;
    primes++;
    for (let j = i * i; j < limit; j += i) composite[j] = 1;
  }
  return primes;
}

function orders(count) {
  const all = [];
  for (let i = 0; i < count; i++) all.push({ id: i, name: `item ${i % 17}`, price: (i * 7919) % 1000, tags: ["a", "b"] });
  const text = JSON.stringify(all);
  const totals = {};
  for (const { name, price } of JSON.parse(text)) totals[name] = (totals[name] ?? 0) + price;
  return Object.entries(totals).sort(([, a], [, b]) => b - a)[0][0];
}

export default {
  fetch() {
    return Response.json({ fib: fib(16), primes: sieve(5000), best: orders(200) });
  },
};
