//! WHATWG URLs. A parsed URL goes to the prelude as its text and the offsets of its parts, so that a part is only cut out
//! when it is asked for.

use rquickjs::{Array, Ctx, Function, Object, Result};
use url::{Url, quirks};

/// Puts the functions on the prelude's `host` object.
pub(super) fn install<'js>(ctx: &Ctx<'js>, host: &Object<'js>) -> Result<()> {
    host.set("urlParse", Function::new(ctx.clone(), parse)?)?;
    host.set("urlSet", Function::new(ctx.clone(), set)?)?;
    host.set("urlOrigin", Function::new(ctx.clone(), |href: String| {
        Url::parse(&href).map_or_else(|_| "null".to_owned(), |url| quirks::origin(&url))
    })?)
}

fn parse<'js>(ctx: Ctx<'js>, href: String, base: Option<String>) -> Result<Option<Array<'js>>> {
    let url = match base {
        None => Url::parse(&href),
        Some(base) => Url::parse(&base).and_then(|base| base.join(&href)),
    };
    url.ok().map(|url| parts(&ctx, &url)).transpose()
}

/// Changes one part; none when the new value does not fit there.
fn set<'js>(ctx: Ctx<'js>, href: String, part: String, value: String) -> Result<Option<Array<'js>>> {
    let Ok(mut url) = Url::parse(&href) else { return Ok(None) };
    let done = match part.as_str() {
        "protocol" => quirks::set_protocol(&mut url, &value),
        "username" => quirks::set_username(&mut url, &value),
        "password" => quirks::set_password(&mut url, &value),
        "host" => quirks::set_host(&mut url, &value),
        "hostname" => quirks::set_hostname(&mut url, &value),
        "port" => quirks::set_port(&mut url, &value),
        "pathname" => Ok(quirks::set_pathname(&mut url, &value)),
        "search" => Ok(quirks::set_search(&mut url, &value)),
        _ => Ok(quirks::set_hash(&mut url, &value)),
    };
    done.ok().map(|()| parts(&ctx, &url)).transpose()
}

/// `[href, scheme end, username end, host start, host end, path start, query start or -1, fragment start or -1]`
fn parts<'js>(ctx: &Ctx<'js>, url: &Url) -> Result<Array<'js>> {
    let at = quirks::internal_components(url);
    let parts = Array::new(ctx.clone())?;
    parts.set(0, url.as_str())?;
    parts.set(1, at.scheme_end)?;
    parts.set(2, at.username_end)?;
    parts.set(3, at.host_start)?;
    parts.set(4, at.host_end)?;
    parts.set(5, at.path_start)?;
    parts.set(6, at.query_start.map_or(-1.0, f64::from))?;
    parts.set(7, at.fragment_start.map_or(-1.0, f64::from))?;
    Ok(parts)
}
