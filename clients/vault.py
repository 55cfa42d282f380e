"""A server of secrets as others write one: `grpcio` and the Python build of Envoy's protocol (`xds-protos`), nothing of
Outgate's. It speaks both variants of the Secret Discovery Service by the protocol's document
(https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol), and notes what clients say to it."""

import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.secret.v3 import sds_pb2_grpc

SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


@dataclass
class Vault:
    """What it holds, who asked for what, and what they refused."""

    variant: str = "delta"
    secrets: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    subscribed: list[str] = field(default_factory=list)
    known_at_connecting: list[dict[str, str]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    # The common names of those who were let in over TLS.
    clients: set[str] = field(default_factory=set)
    versions: int = 0
    server: grpc.Server | None = None

    def __post_init__(self):
        self.lock = threading.Lock()
        self.streams: set[queue.Queue] = set()

    # What there is

    def put(self, name: str, value: str | bytes) -> None:
        """Gives a generic secret this value, for all who have it."""
        value = value.encode() if isinstance(value, str) else value
        secret = secret_pb2.Secret(name=name)
        secret.generic_secret.secret.inline_bytes = value
        self.place(name, secret)

    def put_elsewhere(self, name: str, path: str) -> None:
        """Says that the value is in a file of the client's machine."""
        secret = secret_pb2.Secret(name=name)
        secret.generic_secret.secret.filename = path
        self.place(name, secret)

    def place(self, name: str, secret: secret_pb2.Secret) -> None:
        with self.lock:
            self.versions += 1
            self.secrets[name] = (str(self.versions), secret.SerializeToString())
        self.tell(name)

    def remove(self, name: str) -> None:
        with self.lock:
            self.secrets.pop(name, None)
        self.tell(name)

    def tell(self, name: str) -> None:
        with self.lock:
            for stream in self.streams:
                stream.put(name)

    # Where it is

    def open(self, address: str, identity: tuple[Path, Path] | None = None, client_ca: Path | None = None) -> "Vault":
        """Serves at `unix:PATH`, or at `HOST:PORT` to clients with a certificate of `client_ca`."""
        self.server = grpc.server(ThreadPoolExecutor(16))
        service = Incremental(self) if self.variant == "delta" else WholeWorld(self)
        sds_pb2_grpc.add_SecretDiscoveryServiceServicer_to_server(service, self.server)
        if identity is None:
            self.port = self.server.add_insecure_port(address)
        else:
            certificate, key = (path.read_bytes() for path in identity)
            credentials = grpc.ssl_server_credentials([(key, certificate)], client_ca.read_bytes(), True)
            self.port = self.server.add_secure_port(address, credentials)
        self.server.start()
        return self

    def close(self) -> None:
        if self.server:
            self.server.stop(None).wait(5)
            self.server = None

    # Streams

    def begin(self, context: grpc.ServicerContext) -> queue.Queue:
        self.clients |= {name.decode() for name in context.peer_identities() or ()}
        stream = queue.Queue()
        with self.lock:
            self.streams.add(stream)
        context.add_callback(lambda: (self.streams.discard(stream), stream.put(None)))
        return stream

    def note(self, request) -> None:
        if request.HasField("error_detail"):
            self.refusals.append(request.error_detail.message)


def read_into(stream: queue.Queue, requests) -> None:
    """Requests arrive beside changes."""

    def read() -> None:
        try:
            for request in requests:
                stream.put(request)
        except Exception:
            pass
        stream.put(None)

    threading.Thread(target=read, daemon=True).start()


class Incremental(sds_pb2_grpc.SecretDiscoveryServiceServicer):
    """Knows `DeltaSecrets` alone. It says nothing of what the client has already: where that is all that was asked for,
    the answer has not even begun."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault

    def DeltaSecrets(self, requests, context):
        stream = self.vault.begin(context)
        read_into(stream, requests)
        has: dict[str, str | None] = {}
        wanted: set[str] = set()
        nonce, is_first = 0, True
        while (event := stream.get()) is not None:
            if isinstance(event, str):
                names = {event} & wanted
            else:
                self.vault.note(event)
                if is_first:
                    has.update(event.initial_resource_versions)
                    self.vault.known_at_connecting.append(dict(event.initial_resource_versions))
                    is_first = False
                names = set(event.resource_names_subscribe)
                wanted |= names
                self.vault.subscribed.extend(names)
                for name in event.resource_names_unsubscribe:
                    wanted.discard(name)
                    has.pop(name, None)
            response = self.response(names, has)
            if response.resources or response.removed_resources:
                nonce += 1
                response.nonce = f"n{nonce}"
                yield response

    def response(self, names: set[str], has: dict) -> discovery_pb2.DeltaDiscoveryResponse:
        response = discovery_pb2.DeltaDiscoveryResponse(type_url=SECRET)
        with self.vault.lock:
            for name in sorted(names):
                version, body = self.vault.secrets.get(name, (None, b""))
                if version is None:
                    response.removed_resources.append(name)
                    has.pop(name, None)
                elif has.get(name) != version:
                    resource = response.resources.add(name=name, version=version)
                    resource.resource.type_url, resource.resource.value = SECRET, body
                    has[name] = version
        return response


class WholeWorld(sds_pb2_grpc.SecretDiscoveryServiceServicer):
    """Knows `StreamSecrets` alone: every response holds all that was asked for and exists."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault

    def StreamSecrets(self, requests, context):
        stream = self.vault.begin(context)
        read_into(stream, requests)
        wanted: list[str] = []
        nonce, sent = 0, None
        while (event := stream.get()) is not None:
            if isinstance(event, str):
                if event not in wanted:
                    continue
            else:
                self.vault.note(event)
                if event.response_nonce and event.response_nonce != f"n{nonce}":
                    continue
                self.vault.subscribed.extend(set(event.resource_names) - set(wanted))
                is_answered = sent is not None and set(event.resource_names) == set(wanted)
                wanted = list(event.resource_names)
                if is_answered:
                    continue
            with self.vault.lock:
                found = [(SECRET, self.vault.secrets[name][1]) for name in wanted if name in self.vault.secrets]
                sent = str(self.vault.versions)
            nonce += 1
            response = discovery_pb2.DiscoveryResponse(type_url=SECRET, version_info=sent, nonce=f"n{nonce}")
            for type_url, body in found:
                response.resources.add(type_url=type_url, value=body)
            yield response
