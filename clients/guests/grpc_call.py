"""grpcio with default channel settings. Argument: say | fail | count. The API key is in DEMO_API_KEY, if it is set."""

import json
import os
import sys
import time

import grpc

metadata = [("authorization", f"Bearer {os.environ['DEMO_API_KEY']}")] if "DEMO_API_KEY" in os.environ else []
with grpc.secure_channel("grpc.example.com:443", grpc.ssl_channel_credentials()) as channel:
    try:
        if sys.argv[1] == "count":
            call = channel.unary_stream("/demo.Echo/Count")(b"", metadata=metadata, timeout=20)
            pieces = [(piece.decode(), time.monotonic()) for piece in call]
            answer = {"text": "".join(text for text, _ in pieces), "spread": pieces[-1][1] - pieces[0][1]}
        else:
            request = b"fail" if sys.argv[1] == "fail" else b"hello"
            reply, call = channel.unary_unary("/demo.Echo/Say").with_call(request, metadata=metadata, timeout=20)
            answer = {"text": reply.decode()}
        print(json.dumps(answer | {"code": call.code().name, "trailers": dict(call.trailing_metadata())}))
    except grpc.RpcError as error:
        trailers = dict(error.trailing_metadata() or ()) | dict(error.initial_metadata() or ())
        trailers = {key: value for key, value in trailers.items() if isinstance(value, str)}
        print(json.dumps({"code": error.code().name, "details": error.details(), "trailers": trailers}))
