"""The sending of an answer: what uvicorn does not count, and HTTP/1.0."""

from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class Cycle(RequestResponseCycle):
    """Knows how large the part is that is being sent: the event loop keeps it whole until its last byte is taken."""

    part_size = 0

    async def send(self, message: Any) -> None:
        """Send a part of the answer."""
        self.part_size = len(message.get("body", b""))
        if message["type"] == "http.response.start" and (not self.keep_alive or _closes(message)):
            self.default_headers = [one for one in self.default_headers if b"keep-alive" not in one]
        await super().send(message)


def _closes(message: Any) -> bool:
    headers = message.get("headers", ())
    return any(name.lower() == b"connection" and b"close" in value.lower() for name, value in headers)


class OldHttpCycle(Cycle):
    """Ends an answer of unknown length by closing: HTTP/1.0 knows no chunks (RFC 9112, section 6.1)."""

    is_open_ended = False

    async def send(self, message: Any) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message.get("headers", ())}
            self.is_open_ended = b"content-length" not in names and message["status"] not in (204, 304)
            if self.is_open_ended:
                self.keep_alive, self.chunked_encoding = False, False
        elif self.is_open_ended:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)
