"""Counts the visits of pages: POST counts one, GET says how many there were."""

import json
import re

from marram import Response


def fetch(request, env):
    page = request.headers["marram-param-page"]
    if not re.fullmatch(r"[a-z0-9-]{1,40}", page):
        return Response("the name of a page has up to 40 small letters, digits and hyphens\n", 400)
    if request.method == "GET":
        return shown(page, int(env.kv.visits.get(page, 0)))
    # On the disk when this returns, and never lost to another request at the same time.
    return shown(page, env.kv.visits.increment(page))


def shown(page, visits):
    # With a line end, for who reads it in a terminal.
    text = json.dumps({"page": page, "visits": visits}) + "\n"
    return Response(text, headers={"content-type": "application/json"})
