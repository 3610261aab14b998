"""MQTT beside brokers: what is acknowledged a second, and what connections hold."""

import contextlib
import re
import socket
import statistics
import subprocess
import time

from rig import events
from rig.marram import Node
from rig.report import Finding, markdown_table
from rows.start import settled

CLIENTS, IN_FLIGHT, BYTES = 50, 20, 256
TO_NATS, TO_MOSQUITTO, TO_MOSQUITTO_ALONE = 5, 0.6, 0.25
IDLE_CONNECTIONS, IDLE_MB_MAX = 2_000, 30


def durable(bench, report):
    """QoS 1, in rounds that alternate. Marram keeps each message in a stream, NATS in JetStream."""
    rates = {}
    with contextlib.ExitStack() as servers:
        node = servers.enter_context(broker(bench, "marram-mqtt"))
        brokers = {
            "marram, durable": node.said_value("mqtt").removeprefix("mqtt://"),
            "NATS, sync always": servers.enter_context(bench.peers.nats_mqtt()).url,
            "mosquitto, no sync": servers.enter_context(bench.peers.mosquitto_mqtt()).url,
        }
        for turn in range(bench.rounds + 1):
            for name, address in brokers.items():
                for clients in (CLIENTS, 1):
                    found = load(bench, address, clients, 1 if turn == 0 else bench.seconds)
                    if turn:
                        rates.setdefault((name, clients), []).append(found)
        acknowledged = sum(messages for found in (rates["marram, durable", CLIENTS], rates["marram, durable", 1])
                           for _, _, _, messages in found)
        kept = events.stream(node, "in")["events"]
        if kept < acknowledged:
            raise RuntimeError(f"{acknowledged} messages were acknowledged, and {kept} are kept")
    rate = lambda name, clients: statistics.median(found[0] for found in rates[name, clients])
    mine, nats, mosquitto = (rate(name, CLIENTS) for name in brokers)
    rows = [["broker", "clients", "messages/s (min–max)", "p50", "p99"]]
    for (name, clients), found in rates.items():
        column = lambda at: statistics.median(each[at] for each in found)
        low, high = min(each[0] for each in found), max(each[0] for each in found)
        rows.append([name, str(clients), f"{column(0):,.0f} ({low:,.0f}–{high:,.0f})", f"{column(1):.2f} ms",
                     f"{column(2):.2f} ms"])
    report.add("mqtt", [
        Finding.ratio("mqtt", "QoS 1 in, durable, 50 clients, beside NATS (sync always)", mine, nats, TO_NATS),
        Finding.ratio("mqtt", "QoS 1 in, durable, 50 clients, beside mosquitto (no sync)", mine, mosquitto, TO_MOSQUITTO),
        Finding.ratio("mqtt", "QoS 1 in, durable, one client, beside mosquitto (no sync)", rate("marram, durable", 1),
                      rate("mosquitto, no sync", 1), TO_MOSQUITTO_ALONE),
    ], [f"{BYTES} bytes a message, {IN_FLIGHT} in flight a client (`mqtt_load`, MQTT 3.1.1). Nobody subscribes; a stream "
        "of Marram's node captures every topic.", markdown_table(rows)], raw={f"{k}": v for k, v in rates.items()})


def broker(bench, name):
    """A node with MQTT whose stream `in` keeps what the load publishes."""
    node = Node(bench, name, more=["--mqtt", "127.0.0.1:0"])
    with contextlib.ExitStack() as undo:
        undo.enter_context(node)
        node.declare("bench", '[stream.in]\nmqtt = ["captured/#"]\nretain = { bytes = "20GiB" }\n')
        undo.pop_all()
    return Started(node)


class Started:
    """A node that runs already, for a `with` block."""

    def __init__(self, node):
        self.node = node

    def __enter__(self):
        return self.node

    def __exit__(self, *_):
        self.node.stop()


def load(bench, address, clients, seconds):
    """Messages a second, the median and the 99th percentile of milliseconds to an acknowledgement, and all messages."""
    command = [bench.mqtt_load, address, clients, IN_FLIGHT, seconds, BYTES]
    said = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    found = re.match(r"(\d+) messages/s, p50 ([\d.]+) ms, p99 ([\d.]+) ms, (\d+) in all", said.stdout)
    if not found:
        raise RuntimeError(f"{address}: {said.stdout}{said.stderr}")
    return float(found[1]), float(found[2]), float(found[3]), int(found[4])


def idle(bench, report):
    """Connections that only are there, in Marram and in mosquitto."""
    found = {}
    with broker(bench, "marram-mqtt-idle") as node, bench.peers.mosquitto_mqtt() as mosquitto:
        for name, server, address in (("marram", node, node.said_value("mqtt").removeprefix("mqtt://")),
                                      ("mosquitto", mosquitto, mosquitto.url)):
            before, _ = settled(server)
            with contextlib.ExitStack() as connections:
                for n in range(IDLE_CONNECTIONS):
                    connections.enter_context(contextlib.closing(connect(address, n)))
                after, _ = settled(server)
                found[name] = (after - before) / 1e6
    report.add("mqtt-idle", [
        Finding.at_most("mqtt-idle", f"{IDLE_CONNECTIONS:,} idle connections, over idle", found["marram"], IDLE_MB_MAX,
                        "MB"),
        Finding("mqtt-idle", "the same in mosquitto", f"{found['mosquitto']:.1f} MB"),
    ], ["Each is accepted, and has subscribed to a topic of its own."])


def connect(address, number):
    """A client (MQTT 3.1.1) that subscribes to one topic and then says nothing."""
    host, _, port = address.partition(":")
    client = socket.create_connection((host, int(port)), timeout=30)
    name, topic = f"idle-{number:05}".encode(), f"idle/{number:05}".encode()
    client.sendall(bytes([0x10, 12 + len(name), 0, 4]) + b"MQTT" + bytes([4, 2, 0, 0, 0, len(name)]) + name)
    expect(client, bytes([0x20, 2, 0, 0]))
    client.sendall(bytes([0x82, 5 + len(topic), 0, 1, 0, len(topic)]) + topic + b"\x01")
    expect(client, bytes([0x90, 3, 0, 1, 1]))
    return client


def expect(client, answer):
    """Reads exactly this."""
    said = b""
    while len(said) < len(answer):
        part = client.recv(len(answer) - len(said))
        if not part:
            break
        said += part
    if said != answer:
        raise RuntimeError(f"the broker answered {said!r} instead of {answer!r}")
