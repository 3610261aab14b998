"""Events over HTTP into a durable stream, and what a long backlog costs."""

import json
import os
import statistics
import time

from rig import events
from rig.awake import LATENCY, awake
from rig.disk import append_seconds, sync_seconds
from rig.load import Series, wrk
from rig.marram import Node
from rig.report import Finding
from rows.start import settled

CONNECTIONS = 64
RATE_MIN = 20_000
SYNCS_MAX = 1.3
TOKEN = "bench-token-of-events"

BACKLOG = 10_000_000
BACKLOG_MB_MAX, SEEK_MS_MAX = 64, 10
SEEKS = 50


def publish(bench, report):
    """One event a request, on the public listener with the stream's token."""
    many = Series("64 connections", [])
    with Node(bench, "marram-events") as node, bench.peers.syncing_hyper() as hyper:
        node.admin("PUT", "/v1/apps/bench/secrets/ingest_token", TOKEN)
        node.declare("bench", '[stream.in]\ningest = true\nretain = { bytes = "20GiB" }\n')
        servers = {"marram": node, "bare": hyper}
        alone, alone_awake = Alone("one connection", servers), Alone("one connection, processors awake", servers)
        for connections in (CONNECTIONS, 1):
            load(bench, node, connections, 1)
        for _ in range(bench.rounds):
            many.rounds.append(load(bench, node, CONNECTIONS, bench.seconds))
            alone.measure(bench)
            with awake() as is_awake:
                if is_awake:
                    alone_awake.measure(bench)
        kept, answered = events.stream(node, "in")["events"], node.metric("marram_http_requests_total", 'status="2xx"')
        if kept < answered or not answered:
            raise RuntimeError(f"{answered:.0f} publishes were acknowledged, and {kept} events are kept")
    findings = [Finding("events", "HTTP, durable, 64 connections, one event a request", f"{many.rate:,.0f} events/s",
                        f"≥ {RATE_MIN:,}", many.rate >= RATE_MIN)]
    series = [many]
    for each in (alone, alone_awake):
        if each.syncs:
            findings += each.findings()
            series += each.series.values()
    report.add("events", findings, [
        "256 bytes of data an event, binary mode, ids that differ; `wrk -t1 -c64` and `-c1` with `benches/events.lua`. "
        "What was answered was on the disk. The bare server writes over a file of 4 MB, on its connection's thread. "
        f"Awake: while `{LATENCY}` is held at 0, so that no processor sleeps."],
        series, {each.name: {"write_s": each.syncs, "append_s": each.appends} for each in (alone, alone_awake)})


class Alone:
    """One client, which sends its next event when the last one is answered; and what the disk takes meanwhile."""

    def __init__(self, name, servers):
        self.name, self.servers, self.syncs, self.appends = name, servers, [], []
        self.series = {who: Series(f"{name}, {who}", []) for who in servers}

    def measure(self, bench):
        """One round of each server."""
        folder = self.servers["marram"].state
        self.syncs.append(sync_seconds(folder))
        self.appends.append(append_seconds(folder))
        for who, server in self.servers.items():
            self.series[who].rounds.append(load(bench, server, 1, bench.seconds))

    def findings(self):
        """A publish to one sync of either kind, and what the bare server takes."""
        sync, append = statistics.median(self.syncs), statistics.median(self.appends)
        each, bare = (self.series[who].median("p50_ms") / 1e3 for who in ("marram", "bare"))
        at_most = lambda what, sync: Finding("events", f"{self.name}: a publish, to {what}", f"{each / sync:.2f} ×",
                                             f"≤ {SYNCS_MAX} ×", each <= SYNCS_MAX * sync)
        return [
            at_most("4 KiB appended and `fsync`", append),
            at_most("4 KiB written in place and `fdatasync`", sync),
            Finding("events", f"{self.name}: a publish; such an append; such a write",
                    f"{each * 1e6:.0f}; {append * 1e6:.0f}; {sync * 1e6:.0f} µs"),
            Finding("events", f"{self.name}: a bare hyper server that writes in place, to such a write",
                    f"{bare / sync:.2f} ×; {bare * 1e6:.0f} µs"),
        ]


def load(bench, node, connections, seconds):
    """One round. Each has ids of its own."""
    env = {"BENCH_TOKEN": TOKEN, "BENCH_RUN": f"{time.time_ns():x}"}
    return wrk(f"{node.url}/v1/streams/in/events", node, connections, seconds, script=bench.root / "benches/events.lua",
               env=env)


def backlog(bench, report):
    """Ten million events that a consumer is owed; `BENCH_BACKLOG` makes it fewer."""
    count = int(os.environ.get("BENCH_BACKLOG", BACKLOG))
    with Node(bench, "marram-backlog") as node:
        component = bench.guests / "hello-p2.wasm"
        node.declare("streams", '[stream.in]\nretain = { bytes = "100GiB" }\ndedupe = "1s"\n')
        node.deploy("bench", [("late", 'on = [{ stream = "in" }]', component.name, component.read_bytes())])
        consumer = events.stream(node, "in")["consumers"][0]["id"]
        events.pause(node, "in", consumer, True)
        idle, _ = settled(node)
        begun = time.perf_counter()
        events.fill(node, "in", count)
        took = time.perf_counter() - begun
        held, private = settled(node)
        seeks = sorted(seek(node, consumer, 1 + n * 7919 * count // SEEKS % count) for n in range(SEEKS))
        # What comes from the middle of it is delivered, so a seek is not only a number that was noted.
        acked = events.stream(node, "in")["consumers"][0]["acked"]
        seek(node, consumer, count - 1000)
        events.pause(node, "in", consumer, False)
        events.wait_settled(node, "in", acked + 1000)
        after, _ = settled(node)
    grown = (max(held, after) - idle) / 1e6
    report.add("backlog", [
        Finding.at_most("backlog", f"{count:,} events waiting: resident, over idle", grown, BACKLOG_MB_MAX, "MB"),
        Finding.at_most("backlog", "seek of a cursor, median", seeks[len(seeks) // 2] * 1e3, SEEK_MS_MAX, "ms"),
        Finding.at_most("backlog", "seek of a cursor, worst", seeks[-1] * 1e3, SEEK_MS_MAX, "ms"),
    ], [f"Published in batches of {events.BATCH:,} over HTTP, {count / took:,.0f} events a second, by one client that also "
        f"writes the JSON. Idle {idle / 1e6:.1f} MB, then {held / 1e6:.1f} MB, of which {private / 1e6:.1f} MB is not "
        f"mapped from files. A seek is a request to the admin API, {SEEKS} of them, durable."])


def seek(node, consumer, position):
    """Moves a cursor. Returns the seconds of the whole request."""
    body = json.dumps({"consumer": consumer, "from": str(position)})
    begun = time.perf_counter()
    node.admin("POST", "/v1/streams/in/replay", body)
    return time.perf_counter() - begun
