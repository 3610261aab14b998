"""The same on a disk whose syncs take milliseconds: what matters there is how many wait for the same sync."""

import os
import statistics
import subprocess

from rig.client import Client
from rig.disk import sync_seconds
from rig.marram import Node
from rig.report import Finding
from rows import events, keys

MORE_MS = 5
PUBLISHERS = (1, 2, 8, 64)
KEYS, SETS = 20_000, 100


def run(bench, report):
    """Publishers and guests, each of whom writes again as soon as it is answered."""
    library = bench.out / "slow_sync.so"
    library.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, bench.root / "benches/slow_sync.c"], check=True)
    env = {**os.environ, "LD_PRELOAD": str(library), "SLOW_SYNC_US": str(MORE_MS * 1000)}
    with Node(bench, "marram-slow", env=env) as node:
        node.admin("PUT", "/v1/apps/slow/secrets/ingest_token", events.TOKEN)
        node.declare("slow", '[stream.in]\ningest = true\nretain = { bytes = "20GiB" }\n')
        component = bench.guests / "state.wasm"
        node.deploy("bench", [("keys", keys.KEYS, component.name, component.read_bytes())])
        with Client(node.url, timeout_s=120) as client:
            for at in range(0, KEYS, 1_000):
                keys.ask(client, f"/bench/fill/{at}/{at + 1_000}", 1_000)
        sync = sync_seconds(node.state) + MORE_MS / 1e3
        published = {count: [] for count in PUBLISHERS}
        sets = []
        for _ in range(bench.rounds):
            for count, rates in published.items():
                rates.append(events.load(bench, node, count, bench.seconds).rate)
            sets.append(keys.at_once(node, f"/bench/set/{SETS}/{KEYS}", SETS))
    rows = [(f"HTTP, {count} at once, one event a request", "events/s", statistics.median(rates))
            for count, rates in published.items()]
    rows.append((f"`wasi:keyvalue` set, {keys.AT_ONCE} at once", "sets/s", statistics.median(sets)))
    report.add("slow", [
        Finding("slow", f"{what}: {unit}; for each sync", f"{rate:,.0f}; {rate * sync:.1f}") for what, unit, rate in rows
    ], [f"{MORE_MS} ms are added to each sync (`benches/slow_sync.c`). \"For each sync\": in the time that one takes, "
        f"{sync * 1e3:.2f} ms."], raw={"published": published, "sets": sets})
