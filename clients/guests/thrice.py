"""Runs commands one after another and prints how each ended, as JSON. Argument: the commands, a JSON list of lists."""

import json
import subprocess
import sys
import time

ended = []
for command in json.loads(sys.argv[1]):
    start = time.monotonic()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    seconds = time.monotonic() - start
    ended.append({"code": done.returncode, "out": done.stdout, "err": done.stderr, "seconds": seconds})
print(json.dumps(ended))
