"""The `pusher` package, driven over standard input: first a line with the app, then a call per line, each answered by a line of JSON."""

import json
import sys

import pusher


def main(lines, out):
    app = json.loads(next(lines))
    client = pusher.Pusher(
        app_id=app["id"],
        key=app["key"],
        secret=app["secret"],
        host=app["host"],
        port=app["port"],
        ssl=False,
        timeout=10,
        encryption_master_key_base64=app["master_key"],
    )
    for line in lines:
        call = json.loads(line)
        print(json.dumps(answer(client, call["method"], call["parameters"]), default=text), file=out, flush=True)


def answer(client, method, parameters):
    try:
        return {"result": getattr(client, method)(**parameters)}
    except pusher.errors.PusherError as error:
        return {"refused": {"name": type(error).__name__, "text": str(error)}}
    except (TypeError, ValueError) as error:
        return {"failure": repr(error)}


def text(value):
    """The package gives some of its answers as bytes."""
    return value.decode("ascii")


main(iter(sys.stdin), sys.stdout)
