"""Neighbours: the p99 of one function while another one is flooded, beside its p99 without."""

import statistics
import subprocess
import time

from rig.load import wrk
from rig.marram import Node
from rig.report import Finding

FLOOD_CONNECTIONS, QUIET_CONNECTIONS = 5_000, 4
ROUNDS, SECONDS = 3, 5
RATIO_MAX = 3
# What an operator sets for a function that strangers reach on a small machine: no more at once than its share of the
# cores, and a short queue, so that the rest is refused at once and told when to come again.
LIMITS = "limits = { concurrency = 4, queue = 16 }"


def run(bench, report):
    """Quiet and flooded in turns."""
    component = bench.guests / "hello-p2.wasm"
    quiet, flooded, apart, apart_flooded, floods = [], [], [], [], []
    with Node(bench, "marram-flood") as node, bench.peers.bare_hyper() as hyper:
        ask = lambda server, path: wrk(server.url + path, server, QUIET_CONNECTIONS, SECONDS)
        node.deploy_one("/flooded", component, f'instances = "fresh"\n{LIMITS}')
        node.deploy_one("/quiet", component, 'instances = "fresh"')
        wrk(node.url + "/quiet", node, QUIET_CONNECTIONS, 1)
        for _ in range(ROUNDS):
            quiet.append(ask(node, "/quiet"))
            apart.append(ask(hyper, "/"))
            with Flood(node) as flood:
                flooded.append(ask(node, "/quiet"))
                apart_flooded.append(ask(hyper, "/"))
            floods.append(flood.said)
    p99 = lambda rounds: statistics.median(each.p99_ms for each in rounds)
    before, during, ratio = p99(quiet), p99(flooded), p99(flooded) / p99(quiet)
    report.add("flood", [
        Finding("flood", f"p99 beside {FLOOD_CONNECTIONS:,} connections, to its quiet p99", f"{ratio:.2f} ×",
                f"≤ {RATIO_MAX} ×", ratio <= RATIO_MAX),
        Finding("flood", "p99 quiet; flooded", f"{before:.2f}; {during:.2f} ms"),
        Finding("flood", "the same for a bare hyper server in a process of its own",
                f"{p99(apart_flooded) / p99(apart):.2f} ×; {p99(apart):.2f}; {p99(apart_flooded):.2f} ms"),
    ], [f"Both functions are `guests/hello-p2`, one fresh instance for each request. The flooded one has `{LIMITS}`, the "
        f"other one and the node have their defaults (10,000 connections). The other one is asked by "
        f"{QUIET_CONNECTIONS} connections without pause; the flood comes from `wrk -c{FLOOD_CONNECTIONS}` on the same "
        "cores. What the bare hyper server loses to it is the load on the machine, which no limit of the node takes "
        "back.", *floods],
        raw={name: [vars(each) for each in rounds] for name, rounds in (
            ("quiet", quiet), ("flooded", flooded), ("hyper_quiet", apart), ("hyper_flooded", apart_flooded))})


class Flood:
    """`wrk` with all its connections open, for as long as the block runs."""

    def __init__(self, node):
        self.node, self.said = node, ""

    def __enter__(self):
        command = ["wrk", "-t1", f"-c{FLOOD_CONNECTIONS}", "-d60s", "--timeout", "30s", self.node.url + "/flooded"]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        end = time.perf_counter() + 20
        while (opened := self.node.metric("marram_http_connections_open")) < FLOOD_CONNECTIONS:
            if time.perf_counter() > end or self.child.poll() is not None:
                self.child.kill()
                raise RuntimeError(f"the flood opened only {opened:.0f} connections")
            time.sleep(0.1)
        self.counted, self.begun = self._count(), time.perf_counter()
        return self

    def __exit__(self, *_):
        if self.child.poll() is None:
            took, counted = time.perf_counter() - self.begun, self._count()
            answered, refused = ((now - then) / took for now, then in zip(counted, self.counted))
            self.said = f"The node answered {answered:,.0f} requests a second, and refused {refused:,.0f} more with 503."
            self.child.terminate()
        self.child.wait()
        self.child.stdout.close()

    def _count(self):
        refused = self.node.metric("marram_http_requests_total", 'status="5xx"')
        return self.node.metric("marram_http_requests_total") - refused, refused
