"""The `websockets` package with its defaults. Arguments: URL TOKEN (may be empty)."""

import json
import sys

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

url, token = sys.argv[1:]
headers = {"Authorization": f"Bearer {token}"} if token else {}
try:
    with connect(url, additional_headers=headers, open_timeout=20) as socket:
        socket.send("hello")
        text = socket.recv(timeout=20)
        socket.send(bytes(range(256)) * 1024)
        big = socket.recv(timeout=20)
        print(json.dumps({"text": text, "bytes": len(big), "first": big[0]}))
except InvalidStatus as error:
    reason = error.response.headers.get("x-deny-reason")
    print(json.dumps({"status": error.response.status_code, "reason": reason}))
