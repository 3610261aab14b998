//! `/v1/apps/{app}/secrets`: values go in, and never come out.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use marram_core::limits::VALUE_BYTES_MAX;
use marram_core::{Failure, Kind};
use marram_store::SecretValue;

use super::input::Segments;
use super::operation::Operation;
use super::problem::Refusal;
use super::{Admin, input};
use crate::api::{SecretView, Secrets};

pub(super) fn operations() -> Vec<Operation> {
    const ALL: &str = "/v1/apps/{app}/secrets";
    const ONE: &str = "/v1/apps/{app}/secrets/{name}";
    vec![
        Operation::new(Method::GET, ALL, "listSecrets", "Names of an app's secrets", list)
            .json::<Secrets>(200, "By name"),
        Operation::new(
            Method::PUT,
            ONE,
            "setSecret",
            "Sets a secret, also before its app is deployed; the body is the value",
            set,
        )
        .takes_bytes()
        .answer(204, "It is set, and in use", None),
        Operation::new(Method::DELETE, ONE, "removeSecret", "Removes a secret that no deployed function reads", remove)
            .answer(204, "It is gone", None),
    ]
}

async fn list(State(admin): State<Arc<Admin>>, Segments(app): Segments<String>) -> Result<Json<Secrets>, Refusal> {
    let app = input::name(&app)?;
    let store = Arc::clone(&admin.parts.store);
    let stored_of = app.clone();
    let names = input::blocking(move || store.secret_names(&stored_of)).await?.map_err(Failure::from)?;
    let deployed = admin.parts.reconciler.app(&app).ok();
    let view = |secret: marram_store::SecretName| SecretView {
        updated_unix_ms: secret.set_unix_ns / 1_000_000,
        functions: deployed.as_ref().map(|app| app.desired.readers_of(&secret.name)).unwrap_or_default(),
        name: secret.name,
    };
    Ok(Json(Secrets { secrets: names.into_iter().map(view).collect() }))
}

async fn set(
    State(admin): State<Arc<Admin>>,
    Segments((app, name)): Segments<(String, String)>,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let app = input::name(&app)?;
    let value = input::gather(body, VALUE_BYTES_MAX).await?;
    let value = String::from_utf8(value.into()).map_err(|_| {
        Refusal::new(
            Kind::Invalid,
            format!("the value of secret `{name}` is not UTF-8 text: encode it, in base64 for example"),
        )
    })?;
    admin.parts.reconciler.set_secret(app, name, SecretValue::from(value)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(
    State(admin): State<Arc<Admin>>,
    Segments((app, name)): Segments<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let app = input::name(&app)?;
    if admin.parts.reconciler.remove_secret(app.clone(), name.clone()).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    let shown: String = name.chars().take(80).collect();
    Err(Refusal::new(
        Kind::NotFound,
        format!("app \"{app}\" has no secret {shown:?}: `marram secret ls {app}` lists them"),
    ))
}
