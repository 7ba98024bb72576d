"""A chat with tokens in Flask: `taut serve` holds the connections, and this answers, with the library of GRIP.

Each event of a connection is one request, in the form WebSocket-over-HTTP. README.md tells how to run it.
"""

import json
import os
import re

from flask import Flask, Response, render_template, request
from gripcontrol import (
    GripPubControl,
    WebSocketContext,
    WebSocketEvent,
    WebSocketMessageFormat,
    decode_websocket_events,
    encode_websocket_events,
    parse_grip_uri,
    validate_sig,
)
from pubcontrol import Item

app = Flask(__name__)
grip = parse_grip_uri(os.environ["GRIP_URL"])
publisher = GripPubControl(grip)


@app.get("/")
def page():
    return render_template("chat.html", server=os.environ.get("TAUT_URL", ""))


@app.post("/chat/<room>")
def chat(room):
    if not validate_sig(request.headers.get("Grip-Sig", ""), grip["key"]):
        return "not signed", 403
    meta = {name[5:].lower(): value for name, value in request.headers.items() if name.lower().startswith("meta-")}
    ws = WebSocketContext(request.headers["Connection-Id"], meta, decode_websocket_events(request.get_data()))
    channel = f"room-{room}"
    if ws.is_opening():
        user = user_of_token(request.args.get("token", ""))
        if user is None:
            return "unknown token", 401
        publish(channel, {"joined": user})
        ws.accept()
        ws.meta["user"] = user
        ws.subscribe(channel)
        ws.send(json.dumps({"welcome": user}))
    while ws.can_recv():
        try:
            message = ws.recv()
        except OSError:  # the client has vanished
            message = None
        if message is None:
            publish(channel, {"left": ws.meta["user"]})
            break
        if isinstance(message, str):
            publish(channel, {"from": ws.meta["user"], "text": message})
    return respond(ws)


def user_of_token(token):
    """Whom a token is for: here anybody whose name it says; an application looks it up."""
    match = re.fullmatch("token-([a-z]{1,20})", token)
    return match and match[1]


def publish(channel, message):
    """Sends a message to all who are in a channel."""
    publisher.publish(channel, Item(WebSocketMessageFormat(json.dumps(message))), blocking=True)


def respond(ws):
    """Writes what the library leaves to the application: the events, and the metadata that has changed."""
    events = [WebSocketEvent("OPEN"), *ws.out_events] if ws.accepted else ws.out_events
    headers = {f"Set-Meta-{name}": value for name, value in ws.meta.items() if ws.orig_meta.get(name) != value}
    if ws.accepted:
        headers["Sec-WebSocket-Extensions"] = "grip"
    return Response(encode_websocket_events(events), headers=headers, content_type="application/websocket-events")
