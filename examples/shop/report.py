"""What every kind of visitor pays: a report for the shop's owner, as text or as JSON."""

import asyncio
import base64
import hmac

import marram
from marram import Response

MARKETS = ["en-US", "en-GB", "de-DE", "de-CH", "fr-FR"]
# What `price` sees of each kind of visitor, besides the language.
VISITORS = {
    "computer": {"sec-ch-ua-mobile": "?0"},
    "phone": {"sec-ch-ua-mobile": "?1"},
    "member": {"sec-ch-ua-mobile": "?0", "cookie": "member=yes"},
    "phone+member": {"sec-ch-ua-mobile": "?1", "cookie": "member=yes"},
}


async def fetch(request, env):
    if not is_owner(request, env.report_password):
        challenge = {"www-authenticate": 'Basic realm="report", charset="UTF-8"'}
        return Response("the report is for the owner: curl -u owner:<password> …\n", 401, challenge)
    rows = await asyncio.gather(*map(market, MARKETS))
    average = {who: round(sum(row["paid_percent"][who] for row in rows) / len(rows), 1) for who in VISITORS}
    print(f"report over {len(MARKETS)} markets and {len(VISITORS)} kinds of visitors")
    if "json" in request.headers.get("accept", ""):
        return Response.json({"markets": rows, "average_paid_percent": average})
    return Response(table(rows, average))


def is_owner(request, password):
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    expected = base64.b64encode(f"owner:{password}".encode())
    return scheme.lower() == "basic" and hmac.compare_digest(given.encode(), expected)


async def market(tag):
    """What a basket with one of everything costs in one market, by visitor."""
    offers = await asyncio.gather(*(offer({"accept-language": tag, **headers}) for headers in VISITORS.values()))
    baskets = {who: sum(item["cents"] for item in offer["items"]) for who, offer in zip(VISITORS, offers)}
    full = sum(item["full_cents"] for item in offers[0]["items"])
    return {
        "market": tag,
        "language": offers[0]["language"],
        "currency": offers[0]["currency"],
        "basket": {who: cents / 100 for who, cents in baskets.items()},
        "paid_percent": {who: round(100 * cents / full, 1) for who, cents in baskets.items()},
    }


async def offer(headers):
    answer = await marram.fetch("http://price.internal/price", headers=headers)
    if not answer.ok:
        raise RuntimeError(f"price answered with status {answer.status}")
    return answer.json()


def table(rows, average):
    head = f"{'MARKET':7}{'LANGUAGE':10}{'CURRENCY':9}" + "".join(f"{who.upper():>13}" for who in VISITORS)
    lines = ["One of everything, by market and visitor", "", head]
    for row in rows:
        prices = "".join(f"{row['basket'][who]:13.2f}" for who in VISITORS)
        lines.append(f"{row['market']:7}{row['language']:10}{row['currency']:9}{prices}")
    lines.append(f"{'on average, of full price':26}" + "".join(f"{average[who]:11.1f} %" for who in VISITORS))
    return "\n".join(lines) + "\n"
