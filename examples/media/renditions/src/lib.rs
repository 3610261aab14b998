//! Makes renditions of every photo that is uploaded, and deletes them with it.
//!
//! The photo `<name>` of the bucket `uploads` has its renditions in the bucket `renditions`, as `<name>/320.jpg` and
//! `<name>/1024.jpg`. The answer is an event of its own, for the stream `media`. What is no photo has no renditions.

mod bucket;
mod http;
mod photo;

use serde_json::{Value, json};
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

use bucket::Bucket;
use photo::Photo;

wit_bindgen::generate!({ path: "wit", generate_all });
wasip2::http::proxy::export!(Renditions);

/// The longest sides of the renditions in pixels, the largest first.
const SIDES: [u32; 2] = [1024, 320];
/// A name with more bytes leaves no room for the names of its renditions, which have up to 1024.
const NAME_BYTES_MAX: usize = 1024 - "/1024.jpg".len();

struct Renditions;

/// Why an event is not settled well: the status of the answer, and the reason. `5xx` is tried again.
struct Refused(u16, String);

impl wasip2::exports::http::incoming_handler::Guest for Renditions {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let cause = http::header(&request, "ce-id").unwrap_or_default();
        match settle(request) {
            Ok(Some((name, rendered))) => http::answer_event(out, &cause, &name, &rendered),
            Ok(None) => http::answer(out, 204, ""),
            Err(Refused(status, why)) => {
                eprintln!("{why}");
                http::answer(out, status, &why);
            }
        }
    }
}

/// Gives the photo's name and what was made of it, if it is there.
fn settle(request: IncomingRequest) -> Result<Option<(String, Value)>, Refused> {
    let kind = http::header(&request, "ce-type").unwrap_or_default();
    let event: Value = serde_json::from_slice(&http::body(request)).unwrap_or_default();
    let name = event["name"].as_str().ok_or_else(|| Refused(400, "the event names no object".into()))?;
    if name.len() > NAME_BYTES_MAX {
        return Err(Refused(422, format!("a name has {} bytes, more than {NAME_BYTES_MAX}", name.len())));
    }
    match kind.as_str() {
        "marram.object.created" => {
            let rendered = render(name).map_err(|Refused(status, why)| Refused(status, format!("{name}: {why}")))?;
            Ok(rendered.map(|rendered| (name.to_owned(), rendered)))
        }
        "marram.object.deleted" => match delete(name) {
            Ok(()) => Ok(None),
            Err(why) => Err(Refused(503, format!("{name}: {why}"))),
        },
        other => Err(Refused(400, format!("{name}: {other:?} is nothing that happens to an object"))),
    }
}

/// Makes the renditions of what is there now, which may be newer than the event.
fn render(name: &str) -> Result<Option<Value>, Refused> {
    let again = |why| Refused(503, why);
    let Some(upload) = Bucket::open("uploads").and_then(|uploads| uploads.find(name)).map_err(again)? else {
        // Deleted meanwhile; the event that says so comes next.
        return Ok(None);
    };
    let bytes_max = number("bytes_max")?;
    let photo = if upload.size() > bytes_max {
        Err(Refused(413, format!("{} bytes are more than {bytes_max}", upload.size())))
    } else {
        Photo::decode(upload.read().map_err(again)?, number("pixels_max")?)
    };
    let photo = photo.or_else(|refused| {
        // Those of the photo that it may have replaced.
        delete(name).map_err(again)?;
        Err(refused)
    })?;
    let (width, height) = photo.size();
    let mut made = store(name, photo)?;
    made.reverse();
    Ok(Some(json!({ "name": name, "width": width, "height": height, "renditions": made })))
}

/// Gives what each rendition is, the largest first.
fn store(name: &str, mut photo: Photo) -> Result<Vec<Value>, Refused> {
    let renditions = Bucket::open("renditions").map_err(|why| Refused(503, why))?;
    let mut made = Vec::new();
    for side in SIDES {
        photo.shrink(side);
        let (width, height) = photo.size();
        let jpeg = photo.jpeg().map_err(|why| Refused(500, format!("it cannot be encoded: {why}")))?;
        let rendition = at(name, side);
        renditions.write(&rendition, &jpeg).map_err(|why| Refused(503, why))?;
        made.push(json!({ "name": rendition, "width": width, "height": height, "size": jpeg.len() }));
    }
    Ok(made)
}

fn delete(name: &str) -> Result<(), String> {
    Bucket::open("renditions")?.delete(&SIDES.map(|side| at(name, side)))
}

fn at(name: &str, side: u32) -> String {
    format!("{name}/{side}.jpg")
}

fn number(key: &str) -> Result<u64, Refused> {
    let value = std::env::var(key).unwrap_or_default();
    value.parse().map_err(|_| Refused(500, format!("the config `{key}` is {value:?} and not a number")))
}
