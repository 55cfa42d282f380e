"""A gRPC service behind TLS: one unary and one server-streaming method over plain bytes, with trailers."""

import time
from concurrent.futures import ThreadPoolExecutor

import grpc

from services import PAUSE, PIECES, Seen
from upstream import ADDRESSES, KEYS, Upstream, wait_for_port

HOST = "grpc.example.com"


class GrpcUpstream(grpc.GenericRpcHandler):
    """Serves `/demo.Echo/Say` and `/demo.Echo/Count` to those who hold the real key."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream

    def start(self) -> None:
        key = (self.upstream.folder / "leaf.key").read_bytes()
        certificate = (self.upstream.folder / "leaf.pem").read_bytes()
        self.server = grpc.server(ThreadPoolExecutor(4), handlers=[self])
        credentials = grpc.ssl_server_credentials([(key, certificate)])
        assert self.server.add_secure_port(f"{ADDRESSES[HOST]}:443", credentials)
        self.server.start()
        wait_for_port(ADDRESSES[HOST], 443)

    def close(self) -> None:
        self.server.stop(1).wait(5)

    def service(self, call):
        if call.method == "/demo.Echo/Say":
            return grpc.unary_unary_rpc_method_handler(self.say)
        if call.method == "/demo.Echo/Count":
            return grpc.unary_stream_rpc_method_handler(self.count)
        return None

    def admit(self, method: str, context: grpc.ServicerContext) -> None:
        headers = [(key, value) for key, value in context.invocation_metadata() if isinstance(value, str)]
        self.upstream.seen.append(Seen(HOST, ADDRESSES[HOST], "POST", method, "", "2", headers))
        if dict(headers).get("authorization") != f"Bearer {KEYS['grpc']}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "the upstream refused the key")
        context.set_trailing_metadata([("x-trailer", "came-through")])

    def say(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.admit("/demo.Echo/Say", context)
        if request == b"fail":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "asked to fail")
        return request[::-1]

    def count(self, request: bytes, context: grpc.ServicerContext):
        self.admit("/demo.Echo/Count", context)
        for piece in PIECES:
            yield piece.encode()
            time.sleep(PAUSE)
