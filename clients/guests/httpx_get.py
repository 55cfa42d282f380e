"""`httpx`: a streamed GET and a POST on one client. Arguments: HTTP_VERSION URL TOKEN."""

import json
import sys
import time

import httpx

version, url, token = sys.argv[1:]
with httpx.Client(http2=version == "2", headers={"Authorization": f"Bearer {token}"}, timeout=20) as client:
    posted = client.post(url + "/post", json={"hello": "there"})
    lines = []
    with client.stream("GET", url + "/ticks") as answer:
        for line in answer.iter_lines():
            if line:
                lines.append((line, time.monotonic()))
    print(
        json.dumps(
            {
                "version": posted.http_version,
                "posted": posted.json(),
                "lines": [line for line, _ in lines],
                "spread": lines[-1][1] - lines[0][1],
            }
        )
    )
