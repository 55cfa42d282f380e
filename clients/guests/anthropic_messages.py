"""The Anthropic SDK as its users use it: everything from the environment. Argument: message | stream | refused."""

import json
import sys
import time

import anthropic

client = anthropic.Anthropic(max_retries=0)
ask = {"model": "claude-test", "max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]}
match sys.argv[1]:
    case "message":
        print(json.dumps(client.messages.create(**ask).content[0].text))
    case "stream":
        pieces = []
        with client.messages.stream(**ask) as stream:
            for text in stream.text_stream:
                pieces.append((text, time.monotonic()))
        print(json.dumps({"text": "".join(text for text, _ in pieces), "spread": pieces[-1][1] - pieces[0][1]}))
    case "refused":
        try:
            client.messages.create(**ask)
        except anthropic.APIStatusError as error:
            kind, reason = type(error).__name__, error.response.headers.get("x-deny-reason")
            print(json.dumps({"error": kind, "status": error.status_code, "reason": reason, "text": str(error)}))
