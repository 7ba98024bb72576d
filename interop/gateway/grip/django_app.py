"""The program of grip.test.js on Django, with django-grip. Usage: GRIP_URL=… KEY=… python django_app.py PORT"""

import base64
import json
import os
import sys

import django
from django.conf import settings
from django.core.management import execute_from_command_line

settings.configure(
    ALLOWED_HOSTS=["*"],
    DEBUG=False,
    GRIP_URL=os.environ["GRIP_URL"],
    GRIP_VERIFY_KEY=os.environ["KEY"],
    INSTALLED_APPS=["django_eventstream"],
    LOGGING={"version": 1, "disable_existing_loggers": True},
    MIDDLEWARE=[f"{__name__}.handshake", "django_grip.GripMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of the tests",
)
django.setup()

from django.http import HttpResponse  # noqa: E402
from django.urls import include, path  # noqa: E402
from django_eventstream import send_event, urls as eventstream_urls  # noqa: E402
from django_grip import publish as grip_publish, websocket_only  # noqa: E402
from gripcontrol import WebSocketMessageFormat, validate_sig, websocket_control_message  # noqa: E402


def record(request):
    """Prints a request on a line, so that the tests can wait for it."""
    asked = {
        "url": request.get_full_path(),
        "headers": dict(request.headers),
        "body": base64.b64encode(request.body[:2000]).decode(),
        "verified": validate_sig(request.headers.get("Grip-Sig", ""), os.environ["KEY"]),
        "signed": request.grip.signed,
    }
    sys.stdout.write(f"request {json.dumps(asked)}\n")
    sys.stdout.flush()


def handshake(get_response):
    """The library puts a response of its own in the place of the view's, so that headers have to be added outside of it."""

    def middleware(request):
        response = get_response(request)
        if getattr(request, "wscontext", None) and request.wscontext.accepted:
            if "chat.v2" in request.headers.get("Sec-WebSocket-Protocol", ""):
                response["Sec-WebSocket-Protocol"] = "chat.v2"
            response.set_cookie("seen", "1")
        return response

    return middleware


@websocket_only
def chat(request):
    record(request)
    ws = request.wscontext
    if ws.is_opening():
        user = request.GET.get("user")
        if not user:
            headers = {"WWW-Authenticate": "Bearer"}
            return HttpResponse('{"error":"who are you?"}', status=401, content_type="application/json", headers=headers)
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
    return None


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


def publish(request):
    asked = json.loads(request.body)
    meta = {"sender": asked["sender"]} if "sender" in asked else {}
    try:
        if "close" in asked:
            content = WebSocketMessageFormat(action="close", code=asked["close"], reason=asked.get("reason"))
        elif "binary" in asked:
            content = WebSocketMessageFormat(base64.b64decode(asked["binary"]), binary=True)
        else:
            content = WebSocketMessageFormat(asked["text"])
        grip_publish(asked.get("channel", "room"), content, meta=meta, blocking=True)
    except Exception as error:
        return HttpResponse(str(error), status=502)
    return HttpResponse("published")


def event(request):
    send_event("news", "message", json.loads(request.body), async_publish=False)
    return HttpResponse("published")


urlpatterns = [
    path("chat", chat),
    path("publish", publish),
    path("event", event),
    path("events", include(eventstream_urls), {"channels": ["news"]}),
]

if __name__ == "__main__":
    execute_from_command_line([sys.argv[0], "runserver", "--noreload", f"127.0.0.1:{sys.argv[1]}"])
