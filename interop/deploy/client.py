"""A client of Pusher's protocol, as far as these tests need one."""

import socket

PATIENCE = 30


def websocket():
    """A connection to port 6001, with its greeting."""
    stream = socket.create_connection(("127.0.0.1", 6001), timeout=PATIENCE)
    stream.sendall(
        b"GET /app/a-key?protocol=7 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    received = b""
    while b"connection_established" not in received:
        more = stream.recv(4096)
        assert more, received
        received += more
    return stream
