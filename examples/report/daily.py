"""Reports how often each page was visited since the report before. Starts with a schedule."""

from marram import Response

KEPT_S = 400 * 24 * 3600


def fetch(request, env):
    planned = request.json()["planned"]
    # A run that is made again, after a crash, finds what the first one wrote, and says the same.
    report = env.kv.reports.get_json(planned) or write(env, planned)
    print(f"report of {planned}: {report['visits']} visits of {len(report['pages'])} pages")
    # A CloudEvent in the answer goes to the stream `reports`, together with the acknowledgement of the schedule's event.
    event = {
        "ce-specversion": "1.0",
        "ce-id": planned,
        "ce-source": "/report/daily",
        "ce-type": "report.written",
        "ce-subject": planned[:10],
    }
    return Response.json(report, headers=event)


def write(env, planned):
    totals = {page: int(env.kv.visits.get(page, 0)) for page in env.kv.visits.keys()}
    before = max((key for key in env.kv.reports.keys() if key < planned), default=None)
    counted = env.kv.reports.get_json(before, {}).get("totals", {}) if before else {}
    pages = {page: total - counted.get(page, 0) for page, total in totals.items()}
    report = {"planned": planned, "since": before, "visits": sum(pages.values()), "pages": pages, "totals": totals}
    # One write: either all of the report is there, with what the next one begins from, or nothing is.
    env.kv.reports.put(planned, report, ttl=KEPT_S)
    return report
