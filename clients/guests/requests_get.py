"""`requests`: GET or POST with a bearer token. Arguments: METHOD URL TOKEN [BYTES]."""

import hashlib
import json
import sys

import requests

method, url, token = sys.argv[1:4]
body = hashlib.shake_256(b"body").digest(int(sys.argv[4])) if len(sys.argv) > 4 else None
try:
    answer = requests.request(method, url, headers={"Authorization": f"Bearer {token}"}, data=body, timeout=20)
    print(json.dumps({"status": answer.status_code, "headers": dict(answer.headers), "text": answer.text}))
except requests.exceptions.ProxyError as error:
    print(json.dumps({"proxy_error": str(error)}))
