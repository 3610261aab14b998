"""An HTTP function: `on_fetch` answers each request."""

from marram import Response


def on_fetch(request, env):
    return Response(f"Hello from Python at {request.url}\n")
