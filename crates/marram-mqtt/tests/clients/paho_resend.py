"""paho sends 1,000 messages of QoS 1 and 1,000 of QoS 2 through whatever happens to the broker: `paho_resend.py PORT`."""

import sys
import time

import paho.mqtt.client as mqtt


class Client(mqtt.Client):
    """paho 2.2, when it loses a connection twice without a CONNACK in between, publishes again what it was about to release:
    the broker cannot tell that from a new message. This one goes on to release it ([MQTT-4.4.0-1])."""

    def _messages_reconnect_reset_out(self):
        for message in self._out_messages.values():
            if message.state == mqtt.mqtt_ms_resend_pubrel:
                message.state = mqtt.mqtt_ms_wait_for_pubcomp
        super()._messages_reconnect_reset_out()


client = Client(mqtt.CallbackAPIVersion.VERSION2, client_id="resender", protocol=mqtt.MQTTv311, clean_session=False)
client.max_inflight_messages_set(20)
client.reconnect_delay_set(min_delay=1, max_delay=1)
client.connect("127.0.0.1", int(sys.argv[1]), keepalive=5)
client.loop_start()
waiting = []
for n in range(1000):
    for qos in (1, 2):
        waiting.append(client.publish("t", b"%d" % n, qos=qos))
deadline = time.monotonic() + 50
for info in waiting:
    info.wait_for_publish(timeout=max(0.1, deadline - time.monotonic()))
    assert info.is_published(), f"message {info.mid} was never acknowledged"
client.disconnect()
print("ok")
