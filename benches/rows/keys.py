"""Keys from guests: `wasi:keyvalue` as a function calls it."""

import concurrent.futures
import statistics
import time

from rig.client import Client
from rig.disk import sync_seconds
from rig.marram import Node
from rig.report import Finding

AT_ONCE = 16
# What fits the node's cache, what a site has, and what fits no cache by far.
FEW, SOME, MANY = 10_000, 100_000, 1_000_000
CACHED, UNCACHED, SETS = 50_000, 10_000, 1_000
CACHED_MIN, UNCACHED_MIN, SETS_MIN = 500_000, 100_000, 20_000
KEYS = 'on = [{ http = "/..." }]\nallow = { kv = ["bench"], publish = ["bench"], mqtt = ["bench"] }\nlimits = { deadline = "60s", cpu = "60s" }'


def run(bench, report):
    """Requests that call the store over and over, 16 at once."""
    with Node(bench, "marram-keys") as node:
        component = bench.guests / "state.wasm"
        node.deploy("bench", [("keys", KEYS, component.name, component.read_bytes())])
        with Client(node.url, timeout_s=120) as client:
            for at in range(0, MANY, 1_000):
                ask(client, f"/bench/fill/{at}/{at + 1_000}", 1_000)
        rates, syncs = {}, []
        for turn in range(bench.rounds + 1):
            syncs.append(sync_seconds(node.state))
            for name, path, count in (("cached", f"/bench/get/{CACHED}/{FEW}", CACHED),
                                      ("not cached", f"/bench/get/{UNCACHED}/{MANY}", UNCACHED),
                                      ("set", f"/bench/set/{SETS}/{SOME}", SETS),
                                      ("set, many", f"/bench/set/{SETS}/{MANY}", SETS)):
                rate = at_once(node, path, count)
                if turn:
                    rates.setdefault(name, []).append(rate)
    median = {name: statistics.median(found) for name, found in rates.items()}
    least = lambda what, name, limit: Finding("keys", what, f"{median[name]:,.0f} /s", f"≥ {limit:,}",
                                              median[name] >= limit)
    report.add("keys", [
        least("`wasi:keyvalue` get, in the cache, 16 at once", "cached", CACHED_MIN),
        least("`wasi:keyvalue` get, not in the cache, 16 at once", "not cached", UNCACHED_MIN),
        least("`wasi:keyvalue` set, durable, 16 at once", "set", SETS_MIN),
        Finding("keys", "the same over a million keys, a page of the disk each", f"{median['set, many']:,.0f} /s"),
    ], [f"`guests/state`: {AT_ONCE} requests at once, each of which makes {CACHED:,} calls over {FEW:,} keys, {UNCACHED:,} "
        f"over {MANY:,}, and {SETS:,} sets over {SOME:,}; 100 bytes a value, the node's default cache of 8 MiB. One sync of the disk "
        f"takes {statistics.median(syncs) * 1e6:.0f} µs."], raw={**rates, "sync_s": syncs})


def at_once(node, path, count):
    """Calls a second of all requests together."""
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
        clients = [Client(node.url, timeout_s=120) for _ in range(AT_ONCE)]
        try:
            begun = time.perf_counter()
            list(threads.map(lambda client: ask(client, path, count), clients))
            return AT_ONCE * count / (time.perf_counter() - begun)
        finally:
            for client in clients:
                client.socket.close()


def ask(client, path, count):
    """A request that has to say that it did all of it."""
    status, body, _ = client.get(path)
    if (status, body) != (200, str(count).encode()):
        raise RuntimeError(f"{path}: {status} {body[:200]!r}")
