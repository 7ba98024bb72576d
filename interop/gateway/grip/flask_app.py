"""The program of grip.test.js on Flask, with gripcontrol. Usage: GRIP_URL=… KEY=… python flask_app.py PORT"""

import base64
import json
import logging
import os
import sys

from flask import Flask, Response, request
from gripcontrol import (
    GripPubControl,
    Response as GripResponse,
    WebSocketContext,
    WebSocketEvent,
    WebSocketMessageFormat,
    create_hold_stream,
    decode_websocket_events,
    encode_websocket_events,
    parse_grip_uri,
    validate_sig,
    websocket_control_message,
)
from pubcontrol import Item

KEY = os.environ["KEY"]

app = Flask(__name__)
publisher = GripPubControl(parse_grip_uri(os.environ["GRIP_URL"]))


def record():
    """Prints a request on a line, so that the tests can wait for it."""
    asked = {
        "url": request.full_path,
        "headers": dict(request.headers),
        "body": base64.b64encode(request.get_data()[:2000]).decode(),
        "verified": validate_sig(request.headers.get("Grip-Sig", ""), KEY),
    }
    sys.stdout.write(f"request {json.dumps(asked)}\n")
    sys.stdout.flush()


@app.post("/chat")
def chat():
    record()
    meta = {name[5:].lower(): value for name, value in request.headers.items() if name.lower().startswith("meta-")}
    ws = WebSocketContext(request.headers["Connection-Id"], meta, decode_websocket_events(request.get_data()))
    headers = {}
    if ws.is_opening():
        user = request.args.get("user")
        if not user:
            return Response('{"error":"who are you?"}', 401, {"WWW-Authenticate": "Bearer"}, mimetype="application/json")
        if "chat.v2" in request.headers.get("Sec-WebSocket-Protocol", ""):
            headers["Sec-WebSocket-Protocol"] = "chat.v2"
        headers["Set-Cookie"] = "seen=1"
        ws.accept()
        ws.meta["user"] = user
        ws.subscribe("room")
        ws.send(f"hello {user}")
    while ws.can_recv():
        message = ws.recv()
        if message is None:
            ws.close(ws.close_code)
            break
        if isinstance(message, str):
            answer(ws, message)
        else:
            ws.send_binary(message)
    return respond(ws, headers)


def answer(ws, text):
    if text == "leave":
        ws.unsubscribe("room")
    elif text == "bye":
        ws.close(4001)
    elif text == "close":
        ws.close()
    elif text == "detach":
        ws.detach()
    elif text == "forget":
        del ws.meta["user"]
    elif text == "keep-alive":
        ws.send_control(websocket_control_message("keep-alive", {"content": "still here", "timeout": 2}))
    elif text == "quiet":
        ws.send_control(websocket_control_message("set-meta", {"name": "user", "value": ws.meta["user"]}))
        ws.send_control(websocket_control_message("subscribe", {"channel": "quiet", "filters": ["skip-self"]}))
    elif text == "fail":
        raise RuntimeError("secret trace")
    else:
        ws.send(f"[{ws.meta.get('user', 'nobody')}] {text}")


def respond(ws, headers):
    """What the library leaves to the application: the events and the metadata that have changed."""
    events = [WebSocketEvent("OPEN")] if ws.accepted else []
    events += ws.out_events
    if ws.closed:
        events.append(WebSocketEvent("CLOSE", ws.out_close_code.to_bytes(2, "big")))
    if ws.accepted:
        headers["Sec-WebSocket-Extensions"] = "grip"
    for name in ws.orig_meta.keys() | ws.meta.keys():
        if ws.meta.get(name) != ws.orig_meta.get(name):
            headers[f"Set-Meta-{name}"] = ws.meta.get(name, "")
    return Response(encode_websocket_events(events), headers=headers, content_type="application/websocket-events")


@app.get("/api/stream")
def stream():
    first = GripResponse(headers={"Content-Type": "text/event-stream"}, body="data: [stream open]\n\n")
    return Response(create_hold_stream("test", first), content_type="application/grip-instruct")


@app.post("/api/publish")
def publish_stream():
    publisher.publish_http_stream("test", 'data: {"text":"nëws"}\n\n', blocking=True)
    return "published"


@app.post("/publish")
def publish():
    asked = request.get_json()
    meta = {"sender": asked["sender"]} if "sender" in asked else {}
    try:
        if "close" in asked:
            content = WebSocketMessageFormat(action="close", code=asked["close"], reason=asked.get("reason"))
        elif "binary" in asked:
            content = WebSocketMessageFormat(base64.b64decode(asked["binary"]), binary=True)
        else:
            content = WebSocketMessageFormat(asked["text"])
        publisher.publish(asked.get("channel", "room"), Item(content, meta=meta), blocking=True)
    except Exception as error:
        return str(error), 502
    return "published"


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app.run("127.0.0.1", int(sys.argv[1]), threaded=True)
