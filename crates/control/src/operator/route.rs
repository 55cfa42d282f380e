//! The routes: one table that says of each who may call it, what it takes and gives, and who acts. Dispatch,
//! authorization, the OpenAPI document and the tests read it; there is no second place that could say otherwise.

use futures_util::future::BoxFuture;
use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::{
    call::{Call, Outcome},
    code::ErrorCode,
    problem::Refusal,
    query::Parameter,
    routes,
    scope::Scope,
};

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody: what is shown is public. Not recorded.
    Public,
    /// Who signs the call.
    Signed,
    /// Who has one of these scopes.
    Scoped {
        any_of: &'static [Scope],
        /// Whether it concerns all tenants, so that nobody may who is bound to one.
        every_tenant: bool,
    },
}

/// The schema of a type.
pub(crate) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What a route takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Takes {
    Nothing,
    Optionally(SchemaOf),
    Always(SchemaOf),
}

/// What a route answers where all is well.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Gives {
    /// 204.
    Nothing,
    /// 200 or 201.
    Json(u16, SchemaOf),
    /// 200: JSON that is described elsewhere.
    Anything(&'static str),
}

/// One route.
pub(crate) struct Route {
    pub(crate) method: Method,
    /// `{name}` stands for one segment.
    pub(crate) path: &'static str,
    /// The word used in records.
    pub(crate) operation: &'static str,
    pub(crate) about: &'static str,
    pub(crate) access: Access,
    /// Whether it ends or denies: then it acts first, whatever the audit trail says, and waits behind nobody.
    pub(crate) revokes: bool,
    /// Whether it is answered out of memory: then it needs no room, and waits behind nobody.
    pub(crate) is_instant: bool,
    pub(crate) query: &'static [Parameter],
    pub(crate) takes: Takes,
    pub(crate) gives: Gives,
    /// Its own codes, beside those that its access and body bring along.
    pub(crate) codes: &'static [ErrorCode],
    pub(crate) act: fn(Call) -> BoxFuture<'static, Outcome>,
}

impl Route {
    /// A route that takes nothing, gives nothing and has no codes of its own.
    pub(crate) fn new(
        method: Method,
        path: &'static str,
        operation: &'static str,
        access: Access,
        act: fn(Call) -> BoxFuture<'static, Outcome>,
    ) -> Self {
        Self {
            method,
            path,
            operation,
            about: "",
            access,
            revokes: false,
            is_instant: false,
            query: &[],
            takes: Takes::Nothing,
            gives: Gives::Nothing,
            codes: &[],
            act,
        }
    }

    pub(crate) const fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    pub(crate) const fn revoking(mut self) -> Self {
        self.revokes = true;
        self
    }

    pub(crate) const fn instant(mut self) -> Self {
        self.is_instant = true;
        self
    }

    pub(crate) const fn query(mut self, query: &'static [Parameter]) -> Self {
        self.query = query;
        self
    }

    pub(crate) const fn taking(mut self, takes: Takes) -> Self {
        self.takes = takes;
        self
    }

    pub(crate) const fn giving(mut self, gives: Gives) -> Self {
        self.gives = gives;
        self
    }

    pub(crate) const fn refusing(mut self, codes: &'static [ErrorCode]) -> Self {
        self.codes = codes;
        self
    }

    /// What stands in the path's places, if the path is this route's.
    fn places(&self, path: &str) -> Option<Vec<String>> {
        let mut places = Vec::new();
        let mut wanted = self.path.split('/');
        for segment in path.split('/') {
            let wanted = wanted.next()?;
            if wanted.starts_with('{') && !segment.is_empty() {
                places.push(segment.to_owned());
            } else if wanted != segment {
                return None;
            }
        }
        wanted.next().is_none().then_some(places)
    }

    /// Every code that the route can answer with.
    pub(crate) fn all_codes(&self) -> Vec<ErrorCode> {
        use ErrorCode as Code;
        let mut codes = match self.access {
            Access::Public if self.is_instant => Vec::new(),
            Access::Public => vec![Code::TooBusy],
            Access::Signed => vec![
                Code::WebhookUnverified,
                Code::WebhookOutdated,
                Code::TooBusy,
            ],
            Access::Scoped { every_tenant, .. } => {
                let mut codes = vec![
                    Code::CredentialMissing,
                    Code::CredentialInvalid,
                    Code::ScopeMissing,
                    Code::TokenInText,
                ];
                codes.extend(every_tenant.then_some(Code::TenantBound));
                codes.extend((!self.revokes).then_some(Code::TooBusy));
                codes
            }
        };
        codes.extend((self.access != Access::Public).then_some(Code::AuditUnavailable));
        codes.extend([
            Code::MalformedRequest,
            Code::InvalidQuery,
            Code::BodyTooLarge,
            Code::BodyIncomplete,
            Code::UnsupportedMediaType,
            Code::InvalidBody,
            Code::InternalFault,
        ]);
        codes.extend(self.codes);
        codes.sort_unstable();
        codes.dedup();
        codes
    }
}

/// The schema of a type, as a function to put into the table.
pub(crate) fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// Every route.
pub(crate) fn all() -> Vec<Route> {
    [
        routes::sessions::table(),
        routes::requests::table(),
        routes::denylist::table(),
        routes::kill::table(),
        routes::quotas::table(),
        routes::keys::table(),
        routes::gateway::table(),
        routes::policy::table(),
        routes::audit::table(),
        routes::webhooks::table(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The route of a method and a path, and what stands in its places.
pub(crate) fn find<'a>(
    routes: &'a [Route],
    method: &Method,
    path: &str,
) -> Result<(&'a Route, Vec<String>), Refusal> {
    let mut methods: Vec<&str> = Vec::new();
    for route in routes {
        let Some(places) = route.places(path) else {
            continue;
        };
        if route.method == *method {
            return Ok((route, places));
        }
        methods.push(route.method.as_str());
    }
    if methods.is_empty() {
        return Err(ErrorCode::UnknownRoute.into());
    }
    let mut refusal = Refusal::from(ErrorCode::MethodNotAllowed);
    refusal.allow = Some(methods.join(", "));
    Err(refusal)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_path_is_one_routes_or_nobodys() {
        let routes = all();
        let found = |method: Method, path: &str| {
            find(&routes, &method, path).map(|(route, places)| (route.operation, places))
        };
        assert_eq!(
            found(Method::GET, "/v1/sessions").unwrap().0,
            "session.list"
        );
        let (operation, places) = found(Method::POST, "/v1/sessions/abc/kill").unwrap();
        assert_eq!(
            (operation, places.as_slice()),
            ("session.kill", &["abc".to_owned()][..])
        );
        for path in [
            "",
            "/",
            "/v1",
            "/v1/sessions/",
            "/v1/sessions//kill",
            "//v1/sessions",
            "/V1/sessions",
            "/v1/sessions/a/b",
            "/v1/sessions/a/kill/",
            "/v1/%73essions",
            "/v2/sessions",
        ] {
            let refusal = found(Method::GET, path).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::UnknownRoute, "{path}");
        }
        let refusal = found(Method::PATCH, "/v1/denylist").unwrap_err();
        assert_eq!(refusal.allow.as_deref(), Some("GET, POST, DELETE"));
    }

    #[test]
    fn operations_have_a_name_each_and_say_what_they_are_about() {
        let mut seen = HashSet::new();
        for route in all() {
            assert!(seen.insert(route.operation), "{}", route.operation);
            assert!(route.about.ends_with('.'), "{}", route.operation);
        }
    }

    #[test]
    fn what_revokes_asks_for_the_right_to() {
        for route in all().iter().filter(|route| route.revokes) {
            match route.access {
                Access::Signed => {}
                Access::Scoped { any_of, .. } => assert!(any_of.contains(&Scope::Revoke)),
                Access::Public => panic!("{} is open to everybody", route.operation),
            }
        }
    }
}
