//! The public keys of session tokens, for Envoy's own verification (RFC 7517): served on the control plane's door, beside the
//! gRPC services.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use tonic::{body::Body, codegen::BoxFuture, codegen::Service, server::NamedService};

/// Where the keys are.
pub const PATH: &str = "/.well-known/jwks.json";

/// Gives the key set of this moment, as JSON.
pub type Keys = Arc<dyn Fn() -> String + Send + Sync>;

/// Serves [`PATH`].
#[derive(Clone)]
pub(crate) struct KeysService(pub(crate) Keys);

impl NamedService for KeysService {
    const NAME: &'static str = ".well-known";
}

impl Service<Request<Body>> for KeysService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut response = Response::new(Body::empty());
        if request.uri().path() == PATH {
            *response.body_mut() =
                Body::new(http_body_util::Full::new(bytes::Bytes::from((self.0)())));
            response.headers_mut().insert(
                CONTENT_TYPE,
                http::HeaderValue::from_static("application/json"),
            );
        } else {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        Box::pin(std::future::ready(Ok(response)))
    }
}
