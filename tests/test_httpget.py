"""Connections: redirects, credentials, proxies, certificates, and those that were closed meanwhile."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanshards.httprange import HttpFile
from scanshards.remote import RemoteError, RemoteOptions
from tests.remote_servers import DATA, HASTY, BadServer, bad_server, fails_in_time, honest, read


@pytest.fixture
def server() -> Iterator[BadServer]:
    with bad_server() as running:
        yield running


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "ftp://127.0.0.1/x.tar",
        "s3://bucket/x.tar",
        "data:text/plain,hello",
        "/dev/null:http:",
        "http://name:secret@127.0.0.1/x.tar",
        "http://[1/x.tar",
        "",
    ],
)
def test_redirects_lead_only_to_the_web(server, location):
    server.behave = lambda request: request.answer("302 Found", Location=location)
    message = fails_in_time(server, "redirects|scheme|answers 302")
    assert "root:" not in message


def test_redirects_from_https_to_http_are_refused():
    file = HttpFile("https://127.0.0.1/x.tar", HASTY)
    with pytest.raises(RemoteError, match="expected an address on the web that is no less secure"):
        file._redirected("https://127.0.0.1/x.tar", "http://127.0.0.1/x.tar")
    assert file._redirected("https://a/x.tar", "//b/y.tar") == "https://b/y.tar"


def test_redirects_in_a_circle_end(server):
    server.behave = lambda request: request.answer("307 Temporary Redirect", Location=request.path)
    fails_in_time(server, "more than 5 redirects")
    assert len(server.requests) == 6


def test_credentials_go_to_no_other_host_and_an_expired_redirect_is_asked_for_again(server):
    options = RemoteOptions(timeout_s=2, headers={"Authorization": "Bearer secret"})
    with bad_server() as other:
        other.behave = honest
        server.behave = lambda request: request.answer("302 Found", Location=f"{other.url}/signed")
        file = HttpFile(f"{server.url}/x.tar", options)
        assert bytes(file.read(0, 100)) == bytes(file.read(0, 100)) == DATA[:100]
        assert len(server.requests) == 1
        assert server.requests[0].headers["authorization"] == "Bearer secret"
        expired = ["403 Expired"]
        other.behave = lambda request: request.answer(expired.pop()) if expired else honest(request)
        assert bytes(file.read(5, 100)) == DATA[5:105]
        assert len(server.requests) == 2
        assert not any("authorization" in request.headers for request in other.requests)
    assert "secret" not in repr(options)
    with pytest.raises(ValueError, match="name or password"):
        HttpFile("http://me:word@127.0.0.1/x.tar", options)


def test_a_connection_that_the_server_closed_meanwhile_costs_no_wait(server):
    server.behave = lambda request: honest(request) or True  # says it keeps the connection, and closes it
    file = HttpFile(f"{server.url}/x.tar", RemoteOptions())
    began = time.monotonic()
    for _ in range(20):
        assert bytes(file.read(0, 100)) == DATA[:100]
        time.sleep(0.005)
    assert time.monotonic() - began < 1.5


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A self-signed one for 127.0.0.1, its key in the same file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1".split()
    where = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run([*command, *where], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


def test_https_is_read_if_the_certificate_is_trusted_and_refused_at_once_if_not(certificate, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with bad_server(context) as server:
        server.behave = honest
        fails_in_time(server, "CERTIFICATE_VERIFY_FAILED.*check the URL")
        monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
        assert read(server) == DATA[1000:250_000]
        assert len(server.requests) == 1


def test_proxies_of_the_environment_are_used(server, monkeypatch):
    server.behave = honest
    monkeypatch.setenv("http_proxy", server.url.replace("http://", "http://me:word@"))
    monkeypatch.setenv("no_proxy", "")
    assert bytes(HttpFile("http://somewhere.invalid/x.tar", HASTY).read(7, 100)) == DATA[7:107]
    (request,) = server.requests
    assert request.path == "http://somewhere.invalid/x.tar"
    assert request.headers["host"] == "somewhere.invalid"
    assert request.headers["proxy-authorization"] == "Basic bWU6d29yZA=="


def test_an_unknown_host_is_an_error_at_once(monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    with pytest.raises(RemoteError, match=r"nowhere\.invalid/x\.tar: .*not known; check the URL"):
        HttpFile("http://nowhere.invalid/x.tar", RemoteOptions()).read(0, 1)


def test_a_forked_process_takes_no_connection_of_its_parent(server):
    server.behave = honest
    file = HttpFile(f"{server.url}/x.tar", HASTY)
    file.read(0, 10)
    child = os.fork()
    if not child:
        os._exit(0 if bytes(file.read(20, 1000)) == DATA[20:1020] else 1)
    assert bytes(file.read(50_000, 1000)) == DATA[50_000:51_000]
    assert os.waitpid(child, 0)[1] == 0
