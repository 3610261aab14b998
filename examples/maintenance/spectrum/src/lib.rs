//! Stops a machine whose bearing begins to fail, and says of every reading what it shows.
//!
//! A reading is the data of an event whose subject is its MQTT topic, `plant/<machine>/vibration`: samples of the acceleration
//! as little-endian `f32`. The answer is an event of its own, for the stream `trends`.

mod envelope;
mod http;

use serde_json::{Value, json};
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

use envelope::{Bearing, Finding, analyse};
use marram::messaging::mqtt;
use wasi::keyvalue::store;

wit_bindgen::generate!({ path: "wit", generate_all });
wasip2::http::proxy::export!(Spectrum);

/// What the machine is at in the bucket `machines`.
const STOPPED: &[u8] = b"stopped";

struct Spectrum;

/// Why a reading is not taken: the status that settles it, and the reason.
struct Refused(u16, String);

impl wasip2::exports::http::incoming_handler::Guest for Spectrum {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        match read(request) {
            Ok((machine, trend)) => http::answer_event(out, &machine, &trend),
            Err(Refused(status, why)) => {
                eprintln!("{why}");
                http::answer(out, status);
            }
        }
    }
}

fn read(request: IncomingRequest) -> Result<(String, Value), Refused> {
    let topic = http::header(&request, "ce-subject").unwrap_or_default();
    let machine = match topic.split('/').collect::<Vec<_>>()[..] {
        ["plant", machine, "vibration"] => machine.to_owned(),
        _ => return Err(Refused(400, format!("{topic:?} is not plant/<machine>/vibration"))),
    };
    let samples = samples(&http::body(request)).map_err(|why| Refused(400, format!("{machine}: {why}")))?;
    let bearing = bearing().map_err(|why| Refused(500, why))?;
    let found = analyse(&samples, &bearing);
    let found = found.ok_or_else(|| Refused(400, format!("{machine}: {} samples are too few", samples.len())))?;
    // Not our fault and perhaps over soon: the event comes again.
    let fault = judge(&machine, &found).map_err(|why| Refused(503, format!("{machine}: {why}")))?;
    let scores: serde_json::Map<_, _> =
        found.scores.iter().map(|(part, score)| (part.clone(), json!(round(*score)))).collect();
    let trend = json!({
        "machine": machine, "rms": round(found.rms), "peak": round(found.peak), "scores": scores, "fault": fault,
    });
    Ok((machine, trend))
}

/// Stops the machine if this reading confirms a fault. Gives the part that has one.
fn judge(machine: &str, found: &Finding) -> Result<Option<String>, String> {
    let keys = |bucket: &str| store::open(bucket).map_err(|error| format!("{bucket}: {error:?}"));
    let threshold = keys("thresholds")?.get(machine).map_err(|error| format!("{error:?}"))?;
    let threshold = threshold.and_then(|text| String::from_utf8(text).ok()?.trim().parse().ok());
    let limit = threshold.unwrap_or(number("limit")?);
    let machines = keys("machines")?;
    let before = machines.get(machine).map_err(|error| format!("{error:?}"))?;
    let Some((part, score)) = found.worst().filter(|(_, score)| *score >= limit) else {
        if before.is_some() && before.as_deref() != Some(STOPPED) {
            machines.delete(machine).map_err(|error| format!("{error:?}"))?;
        }
        return Ok(None);
    };
    if before.as_deref() == Some(STOPPED) {
        return Ok(Some(part.clone()));
    }
    let seen = before.and_then(|text| String::from_utf8(text).ok()?.parse().ok()).unwrap_or(0) + 1;
    if seen < number("confirm")? as u32 {
        machines.set(machine, seen.to_string().as_bytes()).map_err(|error| format!("{error:?}"))?;
        return Ok(Some(part.clone()));
    }
    // First the machine, then the books.
    stop(machine, &format!("stop: {part}, {score:.1} times the floor"))?;
    machines.set(machine, STOPPED).map_err(|error| format!("{error:?}"))?;
    eprintln!("{machine} is stopped: {part}, {score:.1} times the floor");
    Ok(Some(part.clone()))
}

fn stop(machine: &str, why: &str) -> Result<(), String> {
    let command = mqtt::Message {
        topic: format!("plant/{machine}/command"),
        payload: why.as_bytes().to_vec(),
        qos: mqtt::Qos::AtLeastOnce,
        retain: false,
        expiry_s: Some(60),
        content_type: Some("text/plain".into()),
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
    };
    mqtt::publish(&command).map_err(|error| format!("the command could not be published: {error:?}"))
}

fn samples(bytes: &[u8]) -> Result<Vec<f32>, String> {
    let (samples, []) = bytes.as_chunks::<4>() else {
        return Err(format!("{} bytes are no samples of 4 bytes", bytes.len()));
    };
    let samples: Vec<_> = samples.iter().map(|sample| f32::from_le_bytes(*sample)).collect();
    match samples.iter().all(|sample| sample.is_finite()) {
        true => Ok(samples),
        false => Err("a sample is not a number".into()),
    }
}

fn bearing() -> Result<Bearing, String> {
    let band = std::env::var("resonance_hz").unwrap_or_default();
    let band = band.split_once('-').and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?)));
    let parts = [("outer race", "outer_race"), ("inner race", "inner_race"), ("ball", "ball")];
    let parts = parts.into_iter().map(|(part, key)| Ok((part.to_owned(), number(key)?)));
    Ok(Bearing {
        sample_hz: number("sample_hz")?,
        shaft_hz: number("shaft_hz")?,
        resonance_hz: band.ok_or("the config `resonance_hz` is not two numbers, such as 2000-5000")?,
        parts: parts.collect::<Result<_, String>>()?,
    })
}

fn number(key: &str) -> Result<f32, String> {
    let value = std::env::var(key).unwrap_or_default();
    value.parse().map_err(|_| format!("the config `{key}` is {value:?} and not a number"))
}

fn round(value: f32) -> f64 {
    (f64::from(value) * 1000.0).round() / 1000.0
}
