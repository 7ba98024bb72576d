"""Publishes with the `pusher` package: a JSON request per line on standard input, a JSON answer per line on standard output."""

import json
import sys

import pusher

clients = {}


def client(credentials):
    """One client per set of credentials, as an application would have it: its connection is kept and used again."""
    key = json.dumps(credentials, sort_keys=True)
    if key not in clients:
        clients[key] = pusher.Pusher(ssl=False, timeout=10, **credentials)
    return clients[key]


def connections(publisher):
    """How many TCP connections the package has made for this client so far."""
    pools = publisher.http.session.get_adapter("http://").poolmanager.pools
    return sum(pools[key].num_connections for key in pools.keys())


def answer(request):
    publisher = client(request["credentials"])._pusher_client
    try:
        body = publisher.trigger(request["channels"], request["event"], request["data"], request.get("socket_id"))
        return {"body": body, "connections": connections(publisher)}
    except pusher.errors.PusherError as error:
        return {"error": {"name": type(error).__name__, "text": str(error)}}


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
