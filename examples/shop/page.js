// The shop's page: asks `price` what this visitor pays, and shows it in their language.

const TEXTS = {
  en: {
    welcome: 'Welcome', lead: 'Good things for the edge of the land.', phone: 'on your phone', member: 'for members',
    lantern: 'Storm lantern', blanket: 'Wool blanket', mug: 'Enamel mug', clock: 'Tide clock',
    yours: 'Make it yours', name: 'Your name', join: 'I am a member', save: 'Save',
  },
  de: {
    welcome: 'Moin', lead: 'Gute Dinge für den Rand des Landes.', phone: 'auf dem Telefon', member: 'für Mitglieder',
    lantern: 'Sturmlaterne', blanket: 'Wolldecke', mug: 'Emaillebecher', clock: 'Gezeitenuhr',
    yours: 'Wie es Ihnen gefällt', name: 'Ihr Name', join: 'Ich bin Mitglied', save: 'Merken',
  },
  fr: {
    welcome: 'Bienvenue', lead: 'De bonnes choses pour le bord du monde.', phone: 'sur mobile', member: 'pour les membres',
    lantern: 'Lanterne tempête', blanket: 'Couverture de laine', mug: 'Tasse émaillée', clock: 'Horloge des marées',
    yours: 'À votre goût', name: 'Votre nom', join: 'Je suis membre', save: 'Enregistrer',
  },
};
const PICTURES = {
  lantern: 'M24 14V9a8 8 0 0 1 16 0v5M20 14h24v6H20zM22 20l-4 26h28l-4-26M32 42c-6-4-3-9 0-14 3 5 6 10 0 14M16 46h32v8H16z',
  blanket: 'M10 18h44v28H10zM10 26h44M10 32h44M18 18v28M46 18v28M12 46v6M20 46v6M28 46v6M36 46v6M44 46v6M52 46v6',
  mug: 'M14 18h28v32a4 4 0 0 1-4 4H18a4 4 0 0 1-4-4zM42 24h6a6 6 0 0 1 6 6v6a6 6 0 0 1-6 6h-6M14 24h28M22 6v6M28 4v8M34 6v6',
  clock: 'M32 8a24 24 0 1 1 0 48 24 24 0 0 1 0-48M32 14v4M32 46v4M14 32h4M46 32h4M32 32V20M32 32l8 6M16 42c4-4 6 0 10-2s8-2 12 0 6 2 10-1',
};
const CHOICES = { language: ['en', 'de', 'fr'], currency: ['EUR', 'USD', 'GBP', 'CHF'] };
// What `price` looks at.
const PASSED_ON = ['cookie', 'accept-language', 'user-agent', 'sec-ch-ua-mobile'];
const STYLE = `
  :root { font: 17px/1.5 Georgia, serif; color: #23392f; background: #f3ecdc }
  body { max-width: 54rem; margin: 0 auto; padding: 3rem 1.5rem }
  header { border-bottom: 1px solid #cdbf9f; margin-bottom: 2rem }
  h1 { font-size: 2.6rem; font-weight: 400; margin: 0 } header p { color: #6d6a52; margin: .3rem 0 1.5rem }
  ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1.2rem; list-style: none; padding: 0 }
  li { background: #fffaf0; border-radius: 12px; padding: 1.4rem; text-align: center; box-shadow: 0 2px 10px #5b4a2218 }
  svg { width: 64px; fill: none; stroke: #5f7f63; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round }
  b { display: block; font-weight: 400; font-size: 1.3rem; color: #a8521f } s { color: #a39b84; font-size: .9rem }
  em { background: #dfe8d6; border-radius: 99px; padding: .2rem .9rem; margin-right: .5rem; font-style: normal; font-size: .9rem }
  form { display: flex; flex-wrap: wrap; gap: .8rem; align-items: center; margin-top: 2.5rem }
  input, select, button { font: inherit; padding: .3rem .7rem; border: 1px solid #cdbf9f; border-radius: 8px; background: #fffaf0 }
  button { background: #3f6b4c; color: #fff; border: 0; cursor: pointer } footer { color: #8d866c; margin-top: 2rem; font-size: .85rem }`;

// Everything that goes into a page is escaped, unless it is a piece of a page itself.
class Html { constructor(text) { this.text = text; } }
const escaped = (text) => String(text ?? '').replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
const shown = (value) => (value instanceof Html ? value.text : Array.isArray(value) ? value.map(shown).join('') : escaped(value));
const html = (parts, ...values) => new Html(parts.map((part, n) => part + (n < values.length ? shown(values[n]) : '')).join(''));

export default {
  async fetch(request) {
    return request.method === 'POST' ? remember(await request.formData()) : page(request);
  },
};

async function page(request) {
  const headers = PASSED_ON.filter((name) => request.headers.has(name)).map((name) => [name, request.headers.get(name)]);
  const answer = await fetch('http://price.internal/price', { headers });
  if (!answer.ok) throw new Error(`price answered with status ${answer.status}`);
  const offer = await answer.json();
  const name = cookie(request, 'name');
  console.log(`page in ${offer.language} for ${name || 'a stranger'}`);
  return new Response(`<!doctype html>\n${shown(rendered(offer, name, cookie(request, 'member')))}`, {
    headers: { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'private', vary: PASSED_ON.join(', ') },
  });
}

function rendered(offer, name, member) {
  const texts = TEXTS[offer.language];
  const item = ({ id, price, full_price: full }) => html`
    <li><svg viewBox="0 0 64 64"><path d="${PICTURES[id]}"/></svg><br>${texts[id]}<b>${price}</b>${price === full ? '' : html`<s>${full}</s>`}</li>`;
  const select = (key) => html`<select name="${key}">${CHOICES[key].map((choice) =>
    html`<option${choice === offer[key] ? html` selected` : ''}>${choice}</option>`)}</select>`;
  return html`<html lang="${offer.language}"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Marram Supply</title><style>${new Html(STYLE)}</style>
<header><h1>${texts.welcome}${name && `, ${name}`}</h1><p>${texts.lead}</p></header>
<p>${offer.discounts.map(([why, percent]) => html`<em>−${percent} % ${texts[why]}</em>`)}</p>
<ul>${offer.items.map(item)}</ul>
<form method="post"><strong>${texts.yours}:</strong> <input name="name" value="${name}" placeholder="${texts.name}" maxlength="40">
${select('language')} ${select('currency')}
<label><input type="checkbox" name="member" value="yes"${member === 'yes' ? html` checked` : ''}> ${texts.join}</label>
<button>${texts.save}</button></form>
<footer>price: Rust · page: JavaScript · report: Python</footer></html>`;
}

// Keeps what the visitor chose, in cookies.
function remember(form) {
  const headers = new Headers({ location: '/' });
  for (const key of ['name', 'language', 'currency', 'member']) {
    const value = encodeURIComponent(String(form.get(key) ?? '').slice(0, 40));
    headers.append('set-cookie', `${key}=${value}; Path=/; Max-Age=${value ? 31536000 : 0}; HttpOnly; SameSite=Lax`);
  }
  return new Response(null, { status: 303, headers });
}

function cookie(request, key) {
  const pair = (request.headers.get('cookie') ?? '').split(/; */).find((text) => text.startsWith(`${key}=`)) ?? '';
  try {
    return decodeURIComponent(pair.slice(key.length + 1));
  } catch {
    return '';
  }
}
