//! What there is to know of the gateway itself: what workloads need, whether it answers, and this interface's document.

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::operator::{
    body::{About, Health, Readiness},
    call::{Call, Done, Outcome},
    code::ErrorCode,
    openapi,
    problem::Refusal,
    route::{Access, Gives, Route, schema},
    scope::Scope,
};

pub(crate) fn table() -> Vec<Route> {
    let access = Access::Scoped {
        any_of: &[Scope::SessionRead, Scope::SessionCreate],
        every_tenant: false,
    };
    vec![
        Route::new(Method::GET, "/v1/gateway", "gateway.show", access, |call| {
            Box::pin(show(call))
        })
        .about("Says what a workload's environment is made of.")
        .giving(Gives::Json(200, schema::<About>)),
        Route::new(
            Method::GET,
            "/v1/health",
            "gateway.health",
            Access::Public,
            |call| Box::pin(health(call)),
        )
        .about("Answers.")
        .instant()
        .giving(Gives::Json(200, schema::<Health>)),
        Route::new(
            Method::GET,
            "/v1/ready",
            "gateway.ready",
            Access::Public,
            |call| Box::pin(ready(call)),
        )
        .about("Says whether the gateway can be given work.")
        .instant()
        .refusing(&[ErrorCode::NotReady])
        .giving(Gives::Json(200, schema::<Readiness>)),
        Route::new(
            Method::GET,
            "/v1/openapi.json",
            "gateway.openapi",
            Access::Public,
            |call| Box::pin(document(call)),
        )
        .about("This document.")
        .giving(Gives::Anything("An OpenAPI 3.1 document.")),
    ]
}

async fn show(call: Call) -> Outcome {
    let mut about = call.api.parts.host.about();
    // What a data plane refused quotes every tenant's rules.
    if call.identity.tenant().is_some() {
        about.data_planes.clear();
    }
    Done::json(StatusCode::OK, &about)
}

async fn health(_: Call) -> Outcome {
    let status = "ok".to_owned();
    Done::json(StatusCode::OK, &Health { status })
}

async fn ready(call: Call) -> Outcome {
    let waits_for = call.api.parts.host.waits_for();
    if waits_for.is_empty() {
        let status = "ready".to_owned();
        return Done::json(StatusCode::OK, &Readiness { status });
    }
    let words: Vec<_> = waits_for.iter().map(|it| it.as_str()).collect();
    Err(Refusal::saying(ErrorCode::NotReady, words.join(", ")))
}

async fn document(_: Call) -> Outcome {
    Ok(Done {
        status: StatusCode::OK,
        body: Some(Bytes::from_static(openapi::served().as_bytes())),
        ..Done::default()
    })
}
