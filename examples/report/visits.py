"""Counts the visits of pages: POST counts one, GET says how many there were."""

import re

from marram import Response


def fetch(request, env):
    page = request.headers["marram-param-page"]
    if not re.fullmatch(r"[a-z0-9-]{1,40}", page):
        return Response("the name of a page has up to 40 small letters, digits and hyphens\n", 400)
    if request.method == "GET":
        return Response.json({"page": page, "visits": int(env.kv.visits.get(page, 0))})
    # On the disk when this returns, and never lost to another request at the same time.
    return Response.json({"page": page, "visits": env.kv.visits.increment(page)})
