"""paho against the broker: `paho_client.py PORT 3.1.1|5.0 tcp|websockets`; prints `ok` at the end."""

import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

port, version, transport = int(sys.argv[1]), sys.argv[2], sys.argv[3]
new = version == "5.0"
protocol = mqtt.MQTTv5 if new else mqtt.MQTTv311


def properties(kind, **values):
    made = Properties(kind)
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Client:
    """A client whose messages, subscriptions and end are waited for."""

    def __init__(self, name, clean=True, will=None):
        kwargs = {} if new else {"clean_session": clean}
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=protocol, transport=transport, **kwargs
        )
        self.messages, self.acks, self.connected = queue.Queue(), queue.Queue(), queue.Queue()
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        self.client.on_subscribe = lambda _c, _u, _m, codes, _p: self.acks.put(codes)
        self.client.on_unsubscribe = lambda _c, _u, _m, codes, _p: self.acks.put(codes)
        self.client.on_connect = lambda _c, _u, flags, code, props: self.connected.put((flags, code, props))
        if will:
            self.client.will_set(will, b"gone", qos=1)
        kwargs = {}
        if new:
            kwargs = {
                "clean_start": clean,
                "properties": properties(PacketTypes.CONNECT, SessionExpiryInterval=0 if clean else 100),
            }
        self.client.connect("127.0.0.1", port, keepalive=30, **kwargs)
        self.client.loop_start()
        self.flags, code, self.granted = self.connected.get(timeout=10)
        assert not code.is_failure, code

    def subscribe(self, *args, **kwargs):
        self.client.subscribe(*args, **kwargs)
        codes = self.acks.get(timeout=10)
        assert not any(code.is_failure for code in codes), codes

    def unsubscribe(self, topic):
        self.client.unsubscribe(topic)
        self.acks.get(timeout=10)

    def publish(self, *args, **kwargs):
        info = self.client.publish(*args, **kwargs)
        info.wait_for_publish(timeout=10)
        assert info.is_published()

    def get(self):
        return self.messages.get(timeout=10)

    def bye(self):
        self.client.disconnect()
        self.client.loop_stop()

    def cut(self):
        """Ends the connection without a DISCONNECT."""
        self.client.loop_stop()
        self.client._sock_close()


sender = Client("paho-sender")
for level in (0, 1, 2):
    receiver = Client("paho-receiver")
    receiver.subscribe("a/+/c", qos=level)
    for n in range(50):
        sender.publish("a/b/c", b"%d" % n, qos=level)
    for n in range(50):
        message = receiver.get()
        assert (message.payload, message.qos, message.dup) == (b"%d" % n, level, False), message
    receiver.unsubscribe("a/+/c")
    receiver.bye()

# Many at once, to a stream.
for level in (1, 2):
    waiting = [sender.client.publish("captured/x", b"x", qos=level) for _ in range(100)]
    for info in waiting:
        info.wait_for_publish(timeout=20)

# A session that outlives its connection.
receiver = Client("paho-kept", clean=False)
receiver.subscribe("kept", qos=2)
receiver.cut()
for level in (1, 2):
    sender.publish("kept", b"while away", qos=level)
receiver = Client("paho-kept", clean=False)
assert receiver.flags.session_present
assert sorted(receiver.get().qos for _ in range(2)) == [1, 2]
receiver.bye()
cleaner = Client("paho-kept", clean=True)
assert not cleaner.flags.session_present
cleaner.bye()

# Retained messages, and wills.
sender.publish("retained", b"r", qos=1, retain=True)
receiver = Client("paho-receiver")
receiver.subscribe("retained", qos=1)
assert receiver.get().retain
sender.publish("retained", b"", qos=1, retain=True)
assert receiver.get().payload == b""
receiver.subscribe("will", qos=1)
Client("paho-dying", will="will").cut()
assert receiver.get().payload == b"gone"

# Shared subscriptions.
members = [Client(f"paho-member-{n}") for n in range(2)]
for member in members:
    member.subscribe("$share/group/shared", qos=1)
for n in range(10):
    sender.publish("shared", b"%d" % n, qos=1)
got = sorted(member.get().payload for member in members for _ in range(5))
assert got == [b"%d" % n for n in range(10)], got

if new:
    receiver.subscribe(
        [("props", SubscribeOptions(qos=1, noLocal=True, retainAsPublished=True))],
        properties=properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=42),
    )
    said = properties(
        PacketTypes.PUBLISH,
        PayloadFormatIndicator=1,
        MessageExpiryInterval=100,
        ContentType="text/plain",
        ResponseTopic="answers",
        CorrelationData=b"\x00\xff",
        UserProperty=[("b", "1"), ("a", "2"), ("b", "3")],
    )
    receiver.client.publish("props", b"own", qos=1)
    sender.publish("props", b"p", qos=1, properties=said)
    message = receiver.get()
    assert message.payload == b"p", "one's own is left out"
    heard = message.properties
    assert heard.UserProperty == said.UserProperty and heard.CorrelationData == b"\x00\xff", heard
    assert (heard.ContentType, heard.ResponseTopic, heard.PayloadFormatIndicator) == ("text/plain", "answers", 1)
    assert heard.SubscriptionIdentifier == [42] and 98 <= heard.MessageExpiryInterval <= 100, heard
    nameless = Client("")
    assert nameless.granted.AssignedClientIdentifier
    nameless.bye()

for client in (sender, receiver, *members):
    client.bye()
print("ok")
