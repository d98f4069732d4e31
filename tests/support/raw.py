"""Connections to the service without an HTTP library."""

import json
import socket

import httpx

from openapi.contract import Contract
from openapi.schemas import CompiledSchema
from tests.support.server import Server

PROBLEM = CompiledSchema(Contract().resolve({"$ref": "#/components/schemas/Problem"}))


def connect(server: Server) -> socket.socket:
    """Open a connection."""
    url = httpx.URL(server.url)
    return socket.create_connection((url.host, url.port), timeout=10)


def everything(connection: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def problem(answer: bytes) -> tuple[int, str]:
    """Return the status and the code of the last answer on a connection."""
    head, _, body = answer.rpartition(b"\r\n\r\n")
    last = head[head.rindex(b"HTTP/1.1 ") :].lower()
    assert b"content-type: application/problem+json" in last
    assert b"x-content-type-options: nosniff" in last
    content = json.loads(body)
    assert PROBLEM.errors("body", content) == []
    assert content["status"] == int(last.split()[1])
    assert f"x-request-id: {content['request_id']}".encode() in last
    return content["status"], content["code"]
