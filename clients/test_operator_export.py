"""Records on their way to a SIEM: read with the libraries that receivers use, complete after an outage and a restart."""

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from standardwebhooks import Webhook

import pki
from operators import SECRET, Site, until

EXPORT = """
audit:
  export:
    - {{ name: soar, webhook: "https://localhost:{port}/soar", secret_file: soar.secret, ca: {ca} }}
    - {{ name: siem, otlp: "https://localhost:{port}/v1/logs", headers: {{ x-api-key: {{ file: otlp.key }} }}, ca: {ca} }}
"""


class Receiver:
    """A webhook's receiver and a collector on one port, both of which can be down."""

    def __init__(self, folder, key: str):
        self.key, self.down = key, False
        self.records: dict[str, dict[int, dict]] = {"soar": {}, "siem": {}}
        self.refused: list[str] = []
        certificate, private = pki.issue(folder, ["localhost"])
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                status = 503 if receiver.down else 200
                if status == 200:
                    try:
                        (receiver.webhook if self.path == "/soar" else receiver.otlp)(dict(self.headers.items()), body)
                    except Exception as error:
                        receiver.refused.append(f"{self.path}: {error!r}")
                        status = 400
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, private)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def webhook(self, headers: dict, body: bytes) -> None:
        batch = Webhook(SECRET).verify(body, {name.lower(): value for name, value in headers.items()})
        assert batch["type"] == "audit.records"
        for line in batch["records"]:
            self.records["soar"][line["seq"]] = line["record"]

    def otlp(self, headers: dict, body: bytes) -> None:
        headers = {name.lower(): value for name, value in headers.items()}
        assert headers["x-api-key"] == self.key and headers["content-type"] == "application/json"
        request = json_format.Parse(body, ExportLogsServiceRequest(), ignore_unknown_fields=False)
        for resource in request.resource_logs:
            assert {"service.name", "service.instance.id"} <= {a.key for a in resource.resource.attributes}
            for record in (record for scope in resource.scope_logs for record in scope.log_records):
                event = json.loads(record.body.string_value)
                assert record.time_unix_nano == event["time"] * 1_000_000 and record.severity_number > 0
                attributes = {a.key: a.value for a in record.attributes}
                (seq,) = [value.int_value for name, value in attributes.items() if name.endswith("seq")]
                self.records["siem"][seq] = event


@pytest.fixture
def receiver(tmp_path):
    folder = tmp_path / "receiver"
    folder.mkdir()
    receiver = Receiver(folder, "otlp-key-4f7a1c9e2b")
    yield receiver
    receiver.server.shutdown()


def test_every_record_arrives_whatever_happens_on_the_way(receiver, tmp_path, services):
    folder = tmp_path / "site"
    folder.mkdir()
    site = Site(folder, services.ca, further=EXPORT.format(port=receiver.port, ca=tmp_path / "receiver" / "ca.pem"))
    site.secret("otlp.key", receiver.key)
    site.start()
    try:
        _, token = site.open()
        assert site.get(token) == (200, None)
        assert_complete(site, receiver)

        receiver.down = True
        before = {name: len(records) for name, records in receiver.records.items()}
        for _ in range(20):
            assert site.get(token) == (200, None), "a SIEM that is down stops nobody"
        assert site.stop() == 0, site.log_text()
        site.start()
        site.open()
        assert {name: len(records) for name, records in receiver.records.items()} == before
        receiver.down = False
        assert_complete(site, receiver)
    finally:
        site.close()


def assert_complete(site, receiver) -> None:
    """Both have every record that the trail has, as it is there."""
    lines = [json.loads(line) for line in site.told("audit", "show", "--json").splitlines()]
    trail = {line["seq"]: line["record"] for line in lines}
    assert sorted(trail) == list(range(len(trail)))
    for name, records in receiver.records.items():
        until(lambda: receiver.refused or trail.keys() <= records.keys(), 30)
        assert not receiver.refused, name
        assert all(records[seq] == record for seq, record in trail.items()), name
