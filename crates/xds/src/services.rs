//! Which method or service a call is for. A call costs no allocation here beyond what is made to answer it.

use std::{convert::Infallible, sync::Arc};

use http::{Request, Response};
use prost::Message;
use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Service},
    server::NamedService,
};

use crate::{
    XdsService,
    door::bare::{self, Call, Method},
};

type Served = dyn Fn(Request<Body>) -> BoxFuture<Response<Body>, Infallible> + Send + Sync;

/// The services behind a door, by their gRPC names.
#[derive(Clone, Default)]
pub struct Services {
    /// By their paths: `/package.Service/Method`.
    methods: Vec<(&'static str, Arc<Method>)>,
    services: Vec<(&'static str, Arc<Served>)>,
}

/// What is called.
pub(crate) enum Found<'a> {
    Method(&'a Method),
    Service(&'a Served),
    Nothing,
}

impl Services {
    /// None: every call is answered UNIMPLEMENTED.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// These, and a generated server.
    #[must_use]
    #[allow(
        clippy::should_implement_trait,
        reason = "it is what the services of a gRPC server are put together with"
    )]
    pub fn add<S>(self, service: S) -> Self
    where
        S: Service<
                Request<Body>,
                Response = Response<Body>,
                Error = Infallible,
                Future = BoxFuture<Response<Body>, Infallible>,
            > + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
    {
        self.with(
            S::NAME,
            Arc::new(move |request| service.clone().call(request)),
        )
    }

    /// These, and one method, by its path `/package.Service/Method`, that is asked and answered by one message of at most
    /// 192 KiB and 4 GiB. It costs a part of what a generated server does; the other methods of its service are not
    /// there, unless a server of it is added.
    #[must_use]
    pub fn method<Question, Answer, F, Answering>(mut self, path: &'static str, answer: F) -> Self
    where
        Question: Message + Default,
        Answer: Message,
        F: Fn(Call<Question>) -> Answering + Clone + Send + Sync + 'static,
        Answering: Future<Output = Result<Answer, Status>> + Send + 'static,
    {
        self.methods.push((path, bare::method(answer)));
        self
    }

    /// These, and the discovery services.
    #[must_use]
    pub fn xds(mut self, service: &XdsService) -> Self {
        for name in XdsService::NAMES {
            let service = service.clone();
            self = self.with(name, Arc::new(move |request| service.answer(request)));
        }
        self
    }

    fn with(mut self, name: &'static str, call: Arc<Served>) -> Self {
        self.services.push((name, call));
        self
    }

    pub(crate) fn find(&self, path: &str) -> Found<'_> {
        if let Some((_, method)) = self.methods.iter().find(|(known, _)| *known == path) {
            return Found::Method(&**method);
        }
        let service = service_of(path);
        match self.services.iter().find(|(name, _)| *name == service) {
            Some((_, call)) => Found::Service(&**call),
            None => Found::Nothing,
        }
    }
}

/// `/package.Service/Method`.
fn service_of(path: &str) -> &str {
    let path = path.strip_prefix('/').unwrap_or_default();
    path.split_once('/').map_or("", |(service, _)| service)
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.methods.iter().map(|(path, _)| path))
            .entries(self.services.iter().map(|(name, _)| name))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_what_stands_between_the_slashes() {
        for (path, service) in [
            ("/a.b.C/Method", "a.b.C"),
            ("/a.b.C/", "a.b.C"),
            ("/a.b.C", ""),
            ("a.b.C/Method", ""),
            ("//Method", ""),
            ("/", ""),
            ("", ""),
        ] {
            assert_eq!(service_of(path), service, "{path}");
        }
    }
}
