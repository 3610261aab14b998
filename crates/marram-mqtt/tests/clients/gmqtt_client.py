"""gmqtt, with 5.0, against the broker: `gmqtt_client.py PORT`; prints `ok` at the end."""

import asyncio
import sys

import gmqtt

port = int(sys.argv[1])


async def connect(name, **kwargs):
    client = gmqtt.Client(name, **kwargs)
    client.got, client.ready = asyncio.Queue(), asyncio.Queue()
    client.on_message = lambda _c, topic, payload, qos, props: client.got.put_nowait((topic, payload, qos, props)) or 0
    client.on_subscribe = lambda _c, _mid, codes, _props: client.ready.put_nowait(codes)
    await client.connect("127.0.0.1", port, keepalive=30, version=gmqtt.constants.MQTTv50)
    return client


async def get(waiting):
    return await asyncio.wait_for(waiting.get(), 10)


async def main():
    sender = await connect("gmqtt-sender")
    for qos in (0, 1, 2):
        receiver = await connect("gmqtt-receiver", clean_session=True)
        receiver.subscribe("g/+", qos=qos, subscription_identifier=7)
        assert list(await get(receiver.ready)) == [qos]
        for n in range(30):
            sender.publish("g/x", f"{n}", qos=qos, content_type="text/plain", user_property=[("k", "v")])
        for n in range(30):
            topic, payload, got, props = await get(receiver.got)
            assert (topic, payload, got) == ("g/x", b"%d" % n, qos), (topic, payload, got)
            assert props["content_type"] == ["text/plain"] and ("k", "v") in props["user_property"], props
            assert props["subscription_identifier"] == [7], props
        await receiver.disconnect()
    will = gmqtt.Message("g/will", "gone", qos=1, will_delay_interval=1)
    dying = await connect("gmqtt-dying", will_message=will, session_expiry_interval=100)
    receiver = await connect("gmqtt-receiver", clean_session=True)
    receiver.subscribe("g/will", qos=1)
    await get(receiver.ready)
    dying.set_config({"reconnect_retries": 0})
    dying._connection._transport.abort()
    assert (await get(receiver.got))[1] == b"gone"
    for client in (sender, receiver):
        await client.disconnect()
    print("ok", flush=True)


asyncio.run(main())
