//! The external processor in its role `scrub`: what the native plane does to the answer of an injected destination is done
//! here to what Envoy shows of it, and nothing else. Fields and trailers are searched, codings that can be undone are undone
//! and the body is delivered decoded, others are refused, and what is ready of a chunk is answered at once.
//!
//! What Envoy answers by itself, our own denials among it, comes by here too and is let through. Any other answer is
//! refused if its exchange is not known or was not admitted. Envoy lets an answer pass unread when this stream ends in good
//! order, so it never does before Envoy's own end ([`ending`]).
//!
//! What Envoy 1.40 does with `FULL_DUPLEX_STREAMED`, as tried:
//! - One stream an exchange: request head (if asked for), answer's head, chunks as they arrive, the last of them (often an
//!   empty one) with `end_of_stream`, or the trailers. A head with `end_of_stream` (HEAD, 204, 304, `content-length: 0`) is
//!   all there is. The guest gets a head once it is answered here, and no chunk but those of the answers.
//! - `content-length` is taken out of every answer, HEAD's too, unless `allow_content_length_header` is set. A mask is as
//!   long as what it covers, and where a body is decoded the field is removed here: so it is set.
//! - After a 101 the upstream's bytes come as chunks, each when it arrives.
//! - 1xx answers are not shown, and not let on either; HTTP/1 trailers likewise, unless the listener enables them.
//! - `mode_override` is not heeded: an answer in which nothing is looked for is carried as well, untouched.
//! - Fields are overwritten unless `append` says otherwise (`append_action` is not heeded). `:status` and what else begins
//!   with a colon cannot be removed. `x-envoy-…` cannot be changed without `mutation_rules.allow_envoy`, silently unless
//!   `disallow_is_error`; `host`, `:authority`, `:scheme` and `:method` are not changed here; `:path` may be.
//! - The attribute `response.code_details` comes with a head: `via_upstream` of an upstream's, anything else of a local
//!   reply's, even where the filters before never saw the request.
//! - An immediate response is the answer, while the head is not yet on its way; afterwards it resets the exchange.

mod answer;
mod carry;
mod ending;
pub(super) mod fields;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use outgate_credential::{CredentialStore, CredentialVersion};
use outgate_envoy_proto::envoy::service::ext_proc::v3::{ProcessingRequest, ProcessingResponse};
use outgate_journey::{
    denial::{Denial, DenyCode},
    inject::Credentials,
};
use outgate_plane::{answer::Challenge, trail::Trail};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

pub(super) use self::ending::Ending;
use self::{
    answer::{Fault, Known, Scrubbing, ToScrub},
    carry::{Over, carry},
};
use super::{ControlPlane, exchange::Exchange, metadata, refusal};

/// What Envoy's access log says of an exchange that was refused here; its record says why already.
pub(crate) const UNSCRUBBABLE: &str = "outgate_unscrubbable";

impl ControlPlane {
    /// Serves one stream: reads `messages`, answers into `answers`; returns when the stream is over.
    pub(super) async fn scrub(
        &self,
        plane: &str,
        mut messages: Streaming<ProcessingRequest>,
        answers: mpsc::Sender<Result<ProcessingResponse, Status>>,
    ) {
        let Some(ending) = Ending::reserve(&answers).await else {
            return;
        };
        let first = match messages.message().await {
            Ok(Some(first)) => first,
            Ok(None) => return ending.by_envoy(),
            Err(_) => return,
        };
        let id = first
            .metadata_context
            .as_ref()
            .and_then(metadata::request_id);
        let id = id.unwrap_or_default().to_owned();
        let exchange = self.exchanges.find(plane, &id);
        let known = exchange
            .as_deref()
            .and_then(|exchange| self.known(exchange));
        let mut scrubbing = Scrubbing::new(known);
        match carry(&mut scrubbing, first, &mut messages, &answers).await {
            Ok(Over::Complete) => ending.by_envoy(),
            Ok(Over::Broken) => {}
            Err(fault) => {
                let denial = note(exchange.as_deref(), fault);
                let shown = exchange
                    .as_ref()
                    .map_or("", |exchange| &*exchange.request_id);
                let answer = refusal::refuse(&denial, shown, Challenge::Destination);
                let _ = answers
                    .send(Ok(refusal::processed(&answer, UNSCRUBBABLE)))
                    .await;
                // Envoy ends the stream once it has answered.
                while let Ok(Some(_)) = messages.message().await {}
            }
        }
    }

    /// What is known of an exchange; `None` where it was not admitted.
    fn known(&self, exchange: &Exchange) -> Option<Known> {
        let state = exchange.state();
        let admitted = state.admitted.as_ref()?;
        let meter = state.trail.as_ref().map(Trail::meter);
        let scrub = admitted.scrub.clone().map(|lease| -> ToScrub {
            let core = Arc::clone(&self.core);
            Box::new(move || covering(&core.plane.credentials, &lease))
        });
        Some(Known {
            scrub,
            query: admitted.query.clone(),
            hits: meter
                .map(|meter| Arc::clone(&meter.scrubbed))
                .unwrap_or_default(),
        })
    }
}

/// The present version where it covers the admitted one. Envoy attaches what it was told so far: a value before the
/// admitted one, or one that came since.
fn covering(store: &CredentialStore, admitted: &Arc<CredentialVersion>) -> Arc<CredentialVersion> {
    let present = store.lease(admitted.name()).ok();
    present
        .filter(|present| present.covers(admitted))
        .unwrap_or_else(|| Arc::clone(admitted))
}

/// Writes into the record what went wrong, and gives it as a denial.
fn note(exchange: Option<&Exchange>, fault: Fault) -> Denial {
    let mut state = exchange.map(Exchange::state);
    let trail: Option<&mut Trail> = state.as_mut().and_then(|state| state.trail.as_mut());
    match fault {
        Fault::Refused(denial) => {
            if let Some(trail) = trail {
                trail.deny(&denial);
            }
            denial
        }
        Fault::Broken(fault) => {
            if let Some(trail) = trail {
                trail.aborted(fault.to_string());
            }
            Denial::new(DenyCode::UpstreamProtocol).because(fault.to_string())
        }
    }
}
