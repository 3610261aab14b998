// The ward as `vitals` has left it: a page that renews itself, or JSON for whoever asks for that.

const STYLE = `
  :root { font: 18px/1.4 system-ui, sans-serif; color: #1c2b33; background: #eef2f4 }
  body { max-width: 60rem; margin: 0 auto; padding: 2rem 1.5rem }
  table { border-collapse: collapse; width: 100%; background: #fff } th, td { text-align: left; padding: .5rem .9rem; border-bottom: 1px solid #d8e0e4 }
  td.score { font-weight: 700; font-size: 1.4rem } tr.low-medium { background: #fff6d8 } tr.medium { background: #ffe0bd } tr.high { background: #ffc9c4 }`;
const ALARMS = ['none', 'low-medium', 'medium', 'high'];

export default {
  async fetch(request, env) {
    const beds = await read(env.kv.ward);
    if ((request.headers.get('accept') ?? '').includes('json')) return Response.json({ beds });
    return new Response(page(beds), {
      headers: {
        'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store', refresh: '5',
        'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'",
      },
    });
  },
};

async function read(ward) {
  const beds = [];
  for (let listed = {}; !listed.list_complete; ) {
    listed = await ward.list({ cursor: listed.cursor });
    const states = await Promise.all(listed.keys.map(({ name }) => ward.get(name, 'json')));
    // A bed that was removed meanwhile is not there.
    states.forEach((state, n) => state && beds.push(shown(listed.keys[n].name, state)));
  }
  return beds;
}

function shown(bed, { alarm, score, risk, points, reading, at }) {
  return { bed, alarm: ALARMS[alarm.level], since: alarm.since, score, risk, points, reading, at };
}

function page(beds) {
  const columns = ['respiration', 'spo2', 'systolic', 'pulse', 'consciousness', 'temperature'];
  const row = (bed) => `<tr class="${escaped(bed.alarm)}"><td>${escaped(bed.bed)}<td class="score">${escaped(bed.score)}<td>${escaped(bed.alarm)}`
    + columns.map((name) => `<td>${escaped(bed.reading[name])}`).join('') + `<td>${escaped(bed.at)}`;
  const worst = [...beds].sort((a, b) => ALARMS.indexOf(b.alarm) - ALARMS.indexOf(a.alarm) || b.score - a.score);
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Ward</title><style>${STYLE}</style>
<h1>Ward</h1>
<table><tr><th>Bed<th>NEWS2<th>Alarm${columns.map((name) => `<th>${name}`).join('')}<th>At
${worst.map(row).join('\n')}
</table></html>
`;
}

function escaped(value) {
  return String(value ?? '').replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
