//! The rate-limit service: takes a request that ext_authz permitted through *limit* and *inject*, and tells Envoy which
//! credential its injector attaches. A request that is not known here is over every limit.

use std::sync::Arc;

use bytes::Bytes;
use http::Response as HttpResponse;
use outgate_credential::CredentialVersion;
use outgate_envoy_proto::envoy::{
    config::core::v3::HeaderValue,
    service::ratelimit::v3::{RateLimitRequest, RateLimitResponse, rate_limit_response::Code},
};
use outgate_journey::{
    denial::{Denial, DenyCode},
    gate::{PermittedRequest, resume_request},
    inject::InjectionPlan,
    policy::InjectionForm,
};
use outgate_plane::{answer::Challenge, budget::Budget, tripwire::Seen};
use outgate_xds::Call;

use super::{
    ControlPlane,
    exchange::{Admitted, Exchange},
    refusal,
};
use crate::render::{
    injection_key,
    names::{INJECT_HEADER, INJECT_NONE, decision},
};

type Plan = InjectionPlan<Arc<CredentialVersion>>;

impl ControlPlane {
    /// Answers the rate limit's question.
    pub(super) fn should_rate_limit(&self, call: &Call<RateLimitRequest>) -> RateLimitResponse {
        let id = call
            .question
            .descriptors
            .iter()
            .flat_map(|descriptor| &descriptor.entries)
            .find(|entry| entry.key == decision::REQUEST)
            .map(|entry| entry.value.as_str());
        let exchange = id.and_then(|id| self.exchanges.find(&call.client, id));
        match exchange {
            Some(exchange) => self.admit(&call.client, &exchange),
            None => over(&DenyCode::InternalFault.into(), ""),
        }
    }

    fn admit(&self, plane: &str, exchange: &Arc<Exchange>) -> RateLimitResponse {
        // A request is asked for once, and a tunnel never. What goes on is not ended by who asks again.
        let permitted = exchange.state().permitted.take();
        let Some(permitted) = permitted else {
            return over(&DenyCode::InternalFault.into(), &exchange.request_id);
        };
        match self.resume(plane, exchange, permitted) {
            Ok(inject) => RateLimitResponse {
                overall_code: Code::Ok.into(),
                request_headers_to_add: vec![HeaderValue {
                    key: INJECT_HEADER.to_owned(),
                    value: inject,
                    ..HeaderValue::default()
                }],
                ..RateLimitResponse::default()
            },
            Err(denial) => {
                let answer = refused(&denial, &exchange.request_id);
                if let Some(trail) = &mut exchange.state().trail {
                    trail.deny(&denial);
                    trail.answer(answer.status());
                }
                exchange.refused();
                refusal::limited(&answer)
            }
        }
    }

    /// The rest of the journey: limit, inject. Gives the name of what is attached.
    fn resume(
        &self,
        plane: &str,
        exchange: &Arc<Exchange>,
        permitted: PermittedRequest,
    ) -> Result<String, Denial> {
        let core = &self.core;
        let live = &exchange.live;
        let plan = resume_request(&core.plane, &live.policy, permitted)?;
        let allowed = plan.admission().permit().allowed().clone();
        let rule = allowed.rule();
        let mut budget = None;
        if let Some(session) = plan.admission().session() {
            exchange.uses().count(core, live, session, &allowed)?;
            let host = allowed.destination().host();
            core.watch_session(live, session, Seen::Request(host))?;
            budget = Budget::of(core, live, session);
            let announced = exchange.state().announced;
            if let Some(budget) = &budget {
                budget
                    .reserve(announced)
                    .map_err(|code| Denial::new(code).by(&rule.id).of(session.id()))?;
            }
            exchange.state().charged = announced;
        }
        let (name, query) = self.attachment(plane, &plan)?;
        let mut state = exchange.state();
        if let Some(trail) = &mut state.trail {
            trail.allow(rule.id.as_str());
            if let Some(attachment) = plan.attachment() {
                trail.note_attachment(attachment);
            }
        }
        state.budget = budget;
        state.admitted = Some(Arc::new(Admitted {
            scrub: plan.lease_to_scrub(&self.core.plane.credentials),
            query,
        }));
        Ok(name)
    }

    /// What Envoy's injector attaches, and what only a query can carry.
    #[allow(
        clippy::type_complexity,
        reason = "the name, and the query's credential"
    )]
    fn attachment(
        &self,
        plane: &str,
        plan: &Plan,
    ) -> Result<(String, Option<(Arc<CredentialVersion>, InjectionForm)>), Denial> {
        let Some((attachment, injection)) = plan
            .attachment()
            .and_then(|attachment| Some((attachment, attachment.injection()?)))
        else {
            return Ok((INJECT_NONE.to_owned(), None));
        };
        if !self.entitled.may_have(&injection.credential, plane) {
            let rule = &plan.admission().permit().allowed().rule().id;
            return Err(Denial::new(DenyCode::CredentialUnavailable)
                .because("the data plane may not have it (credentials.NAME.planes)")
                .by(rule));
        }
        Ok(
            match injection_key(&injection.credential, &injection.form) {
                Some(key) => (key, None),
                None => (
                    INJECT_NONE.to_owned(),
                    Some((Arc::clone(attachment.lease()), injection.form.clone())),
                ),
            },
        )
    }
}

fn refused(denial: &Denial, request_id: &str) -> HttpResponse<Bytes> {
    refusal::refuse(denial, request_id, Challenge::Destination)
}

fn over(denial: &Denial, request_id: &str) -> RateLimitResponse {
    refusal::limited(&refused(denial, request_id))
}
