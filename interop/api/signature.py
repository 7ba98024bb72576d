"""Signs what Schemathesis sends, as the server libraries of Pusher do, and shows the token of the metrics."""

import hashlib
import hmac
import os
import time
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import requests.auth
import schemathesis

KEY, SECRET = os.environ["TAUT_APP"].split(":")
METRICS_TOKEN = os.environ["TAUT_METRICS_TOKEN"]
SIGNED = ["auth_key", "auth_timestamp", "auth_version", "body_md5", "auth_signature"]


class Signature(requests.auth.AuthBase):
    def __call__(self, request):
        parts = urlsplit(request.url)
        query = {name: value for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in SIGNED}
        query |= {"auth_key": KEY, "auth_timestamp": str(int(time.time())), "auth_version": "1.0"}
        if request.body:
            body = request.body.encode() if isinstance(request.body, str) else request.body
            query["body_md5"] = hashlib.md5(body).hexdigest()
        signed = "&".join(f"{name}={value}" for name, value in sorted(query.items()))
        text = f"{request.method}\n{parts.path}\n{signed}"
        query["auth_signature"] = hmac.new(SECRET.encode(), text.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()
        request.url = urlunsplit(parts._replace(query=urlencode(query)))
        return request


class MetricsToken(requests.auth.AuthBase):
    def __call__(self, request):
        request.headers["Authorization"] = f"Bearer {METRICS_TOKEN}"
        return request


storage = schemathesis.auths.GLOBAL_AUTH_STORAGE
storage.set_from_requests(Signature()).apply_to(path_regex="^/(apps|publish|users|connections|@connections)")
storage.set_from_requests(MetricsToken()).apply_to(path_regex="^/(metrics|nodes)")
