"""Whom outgoing calls believe: a real TLS server with a certificate of nobody well known."""

from __future__ import annotations

import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from modelyard_common import trust
from modelyard_common.errors import Unavailable
from modelyard_common.http import HttpClient
from modelyard_common.trust import trust_for


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.do_GET()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A certificate that vouches for itself, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ours")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path / "ours.pem"
    path.write_bytes(certificate.public_bytes(pem) + secret)
    return path


@pytest.fixture
def secured(authority: Path) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Read the environment again, as a new process does."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    trust._everybody.cache_clear()
    yield
    trust._everybody.cache_clear()


def asked(url: str) -> bytes:
    client = HttpClient(url, service="registry", retries=0)
    try:
        content = client.request("GET", "/").content
        assert client.post_large("/", (b"a", b"b"), {}) == content
        return content
    finally:
        client.close()


def test_a_certificate_of_nobody_known_is_not_believed(secured: str) -> None:
    with pytest.raises(Unavailable, match="registry"):
        asked(secured)
    with closing(HttpClient(secured, service="registry")) as client, pytest.raises(Unavailable, match="SSLCert"):
        client.post_large("/", (b"a",), {})


def test_the_certificates_of_an_installation_are_believed(
    secured: str, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))

    assert asked(secured) == b"ok"


def test_certificates_are_read_once_for_all_clients() -> None:
    assert trust_for("https://one") is trust_for("https://two:444/path")


def test_where_plain_http_is_spoken_nobody_is_believed() -> None:
    context = trust_for("http://registry:8081")

    assert context.get_ca_certs() == []
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
