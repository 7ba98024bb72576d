"""An echo server on the package websockets: prints where it listens, then how each connection was closed.

Usage: server.py [CERTIFICATE KEY]
"""

import asyncio
import http
import signal
import ssl
import sys

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

PAYLOAD = "are you there?"


async def main(certificate=None, key=None):
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
    terminated = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    # Without pings of its own: none of them may keep a connection alive that is to die.
    options = {"ssl": context, "ping_interval": None, "max_size": None, "process_request": refuse}
    async with serve(converse, "127.0.0.1", 0, **options) as server:
        port = server.sockets[0].getsockname()[1]
        print(f"listening on {'wss' if context else 'ws'}://127.0.0.1:{port}", flush=True)
        await terminated.wait()


def refuse(connection, request):
    if request.path == "/forbidden":
        return connection.respond(http.HTTPStatus.FORBIDDEN, '{"error":"not you"}')


async def converse(connection):
    try:
        while True:
            await answer(connection, await connection.recv())
    except ConnectionClosed:
        print(f"closed {connection.close_code} {connection.close_reason}", flush=True)


async def answer(connection, message):
    match message:
        case "please: extensions":
            await connection.send(", ".join(extension.name for extension in connection.protocol.extensions))
        case "please: ping":
            answered = await connection.ping(PAYLOAD)
            await answered
            await connection.send(PAYLOAD)
        case "please: fragments":
            await connection.send(["in ", "several ", "fragments"])
        case _:
            await connection.send(message)


asyncio.run(main(*sys.argv[1:]))
