"""A client on the package websockets: echoes, a ping and a close, then a line of JSON that says how it went.

Usage: client.py URL [--ca FILE] [--deflate] [--bearer TOKEN] [--origin ORIGIN] [--subprotocol NAME ...]
"""

import argparse
import asyncio
import json
import random
import ssl

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

LENGTHS = [0, 1, 125, 126, 65_535, 65_536, 1 << 20]


async def main(wanted):
    options = {"compression": "deflate" if wanted.deflate else None, "max_size": None, "proxy": None}
    if wanted.ca:
        options["ssl"] = ssl.create_default_context(cafile=wanted.ca)
    if wanted.bearer:
        options["additional_headers"] = {"Authorization": f"Bearer {wanted.bearer}"}
    try:
        connection = await connect(wanted.url, origin=wanted.origin, subprotocols=wanted.subprotocol, **options)
    except InvalidStatus as refused:
        return {"status": refused.response.status_code, "body": refused.response.body.decode()}
    report = {"extensions": ", ".join(extension.name for extension in connection.protocol.extensions)}
    report["subprotocol"] = connection.subprotocol
    if wanted.bearer or wanted.subprotocol:
        report["greeting"] = await connection.recv()
    report["echoes"] = await exchange(connection)
    answered = await connection.ping("are you there?")
    await answered
    await connection.close(4001, "done")
    return report | {"code": connection.protocol.close_rcvd.code, "reason": connection.protocol.close_rcvd.reason}


async def exchange(connection):
    messages = [message for length in LENGTHS for message in (text(length), random.randbytes(length))]
    for message in messages:
        await connection.send(message)
        assert await connection.recv() == message, f"the echo of {len(message)} differs"
    parts = [text(70_000), "", text(3)]
    await connection.send(parts)
    assert await connection.recv() == "".join(parts), "the echo of the fragments differs"
    return len(messages) + 1


def text(length):
    """Text of this many bytes, with characters of one to four of them."""
    sample = "Grüße, 漢字 👩 "
    whole = (sample * (length // 21 + 1)).encode()[:length].decode(errors="ignore")
    return whole + "x" * (length - len(whole.encode()))


parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("--deflate", action="store_true")
for option in ("--ca", "--bearer", "--origin"):
    parser.add_argument(option)
parser.add_argument("--subprotocol", action="append")
print(json.dumps(asyncio.run(main(parser.parse_args()))))
