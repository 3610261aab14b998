//! What a visitor pays, and in which currency and language: chosen from cookies, languages and device.

use serde::Serialize;
use wstd::http::{Body, HeaderMap, Request, Response, Result};

/// Everything that the shop has, in cents of the first currency in `rates`.
const CATALOGUE: [(&str, f64); 4] = [("lantern", 4900.0), ("blanket", 8900.0), ("mug", 1450.0), ("clock", 12900.0)];
/// What the page is written in; the first is for visitors who speak none of them.
const LANGUAGES: [&str; 3] = ["en", "de", "fr"];

#[derive(Serialize)]
struct Offer {
    language: &'static str,
    currency: String,
    device: &'static str,
    /// Why the visitor pays less, and how many percent.
    discounts: Vec<(&'static str, f64)>,
    items: Vec<Item>,
}

#[derive(Serialize)]
struct Item {
    id: &'static str,
    cents: u64,
    full_cents: u64,
    /// As the visitor's language writes it.
    price: String,
    full_price: String,
}

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>> {
    let offer = offer(request.headers());
    let Offer { language, currency, device, discounts, .. } = &offer;
    println!("{currency} in {language} for a {device}, {} discounts", discounts.len());
    Ok(Response::builder().header("content-type", "application/json").body(Body::from_json(&offer)?)?)
}

fn offer(headers: &HeaderMap) -> Offer {
    let tags = wanted(header(headers, "accept-language"));
    let spoken = |name: &str| LANGUAGES.into_iter().find(|known| known.eq_ignore_ascii_case(name));
    let chosen = spoken(cookie(headers, "language")).or_else(|| tags.iter().find_map(|tag| spoken(primary(tag))));
    let language = chosen.unwrap_or(LANGUAGES[0]);
    let (currency, rate) = currency(cookie(headers, "currency"), &tags);
    let device = match header(headers, "sec-ch-ua-mobile") {
        "?1" => "phone",
        "" if header(headers, "user-agent").contains("Mobi") => "phone",
        _ => "computer",
    };
    let reasons = [("phone", device == "phone"), ("member", cookie(headers, "member") == "yes")];
    let discount = |why: &str| config(&format!("{why}_discount")).parse().unwrap_or(0.0);
    let discounts: Vec<_> = reasons.iter().filter(|(_, is)| *is).map(|(why, _)| (*why, discount(why))).collect();
    let paid = discounts.iter().fold(1.0, |paid, (_, percent)| paid - percent / 100.0);
    let items = CATALOGUE.map(|(id, base)| {
        let (full_cents, cents) = ((base * rate).round() as u64, (base * rate * paid).round() as u64);
        let text = |cents| written(cents, &currency, language);
        Item { id, cents, full_cents, price: text(cents), full_price: text(full_cents) }
    });
    Offer { language, device, discounts, items: items.into(), currency }
}

/// The chosen currency, or that of the visitor's country, or the first; with its rate.
fn currency(chosen: &str, tags: &[String]) -> (String, f64) {
    let local = match tags.iter().find_map(|tag| tag.split_once('-')).map(|(_, country)| country) {
        Some("US") => "USD",
        Some("GB") => "GBP",
        Some("CH" | "LI") => "CHF",
        _ => "",
    };
    let rates = config("rates");
    let rates: Vec<_> = rates.split(',').filter_map(|entry| entry.trim().split_once(' ')).collect();
    let rate_of = |name: &str| rates.iter().find(|(currency, _)| *currency == name);
    let (currency, rate) = rate_of(chosen).or_else(|| rate_of(local)).or(rates.first()).unwrap_or(&("EUR", "1"));
    ((*currency).to_owned(), rate.parse().unwrap_or(1.0))
}

/// The tags of an Accept-Language field, the most wanted first (RFC 9110 §12.5.4).
fn wanted(field: &str) -> Vec<String> {
    let tag = |entry: &str| {
        let (tag, quality) = entry.split_once(';').unwrap_or((entry, "q=1"));
        let quality = quality.trim().strip_prefix("q=")?.parse::<f64>().ok().filter(|quality| *quality > 0.0)?;
        Some((quality, tag.trim().to_owned()))
    };
    let mut tags: Vec<_> = field.split(',').filter_map(tag).collect();
    tags.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    tags.into_iter().map(|(_, tag)| tag).collect()
}

/// `de` of `de-CH`.
fn primary(tag: &str) -> &str {
    tag.split('-').next().unwrap_or_default()
}

fn written(cents: u64, currency: &str, language: &str) -> String {
    let symbol = [("EUR", "€"), ("USD", "$"), ("GBP", "£")].into_iter().find(|(name, _)| *name == currency);
    let (whole, rest) = (cents / 100, cents % 100);
    match (language, symbol) {
        ("en", Some((_, symbol))) => format!("{symbol}{whole}.{rest:02}"),
        ("en", None) => format!("{currency} {whole}.{rest:02}"),
        (_, symbol) => format!("{whole},{rest:02}\u{a0}{}", symbol.map_or(currency, |(_, symbol)| symbol)),
    }
}

/// A value of `config` in marram.toml.
fn config(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let mut pairs = header(headers, "cookie").split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map_or("", |(_, value)| value)
}
