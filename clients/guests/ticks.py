"""Server-sent events and a WebSocket over sockets that know of no proxy. Arguments: events | socket, HOST [KEY]."""

import json
import os
import socket
import ssl
import sys
import time

way, host, *key = sys.argv[1:]
token = os.environ[key[0]] if key else ""
proof = f"authorization: Bearer {token}\r\n" if key else ""
tcp = socket.create_connection((host, 443), 10)

if way == "events":
    stream = ssl.create_default_context().wrap_socket(tcp, server_hostname=host)
    stream.sendall(f"GET /ticks HTTP/1.1\r\nhost: {host}\r\n{proof}\r\n".encode())
    times, text = [], b""
    while b"data: 3" not in text:
        part = stream.recv(65536)
        if not part:
            break
        times.append(time.monotonic())
        text += part
    print(json.dumps({"text": text.decode(), "spread": times[-1] - times[0]}))
else:
    from websockets.sync.client import connect

    headers = {"Authorization": f"Bearer {token}"} if key else {}
    with connect(f"wss://{host}/socket", sock=tcp, proxy=None, additional_headers=headers) as channel:
        times = []
        for word in ("one", "two"):
            channel.send(word)
            times.append(channel.recv(timeout=10))
        print(json.dumps(times))
