"""The OpenAI SDK as its users use it: everything from the environment. Argument: models | chat | stream | refused."""

import json
import sys
import time

import openai

client = openai.OpenAI(max_retries=0)
ask = {"model": "gpt-test", "messages": [{"role": "user", "content": "hello"}]}
match sys.argv[1]:
    case "models":
        print(json.dumps([model.id for model in client.models.list()]))
    case "chat":
        print(json.dumps(client.chat.completions.create(**ask).choices[0].message.content))
    case "stream":
        pieces = []
        for chunk in client.chat.completions.create(**ask, stream=True):
            if text := chunk.choices[0].delta.content:
                pieces.append((text, time.monotonic()))
        print(json.dumps({"text": "".join(text for text, _ in pieces), "spread": pieces[-1][1] - pieces[0][1]}))
    case "refused":
        try:
            client.chat.completions.create(**ask)
        except openai.APIStatusError as error:
            kind, reason = type(error).__name__, error.response.headers.get("x-deny-reason")
            print(json.dumps({"error": kind, "status": error.status_code, "reason": reason, "text": str(error)}))
