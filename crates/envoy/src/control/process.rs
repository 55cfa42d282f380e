//! The external processor. A stream of the role `hold` lives as long as the tunnel or request that it belongs to, sees none
//! of its bytes, and is how the operator's decisions reach what is already open: when the session is over, the policy no
//! longer carries it or the gateway stops, the stream answers at once, unasked, and Envoy resets what it held. When the
//! stream breaks because this process is gone, Envoy resets it as well: what cannot be cut is not carried.

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use outgate_envoy_proto::envoy::service::ext_proc::v3::{
    HeadersResponse, ProcessingRequest, ProcessingResponse, TrailersResponse,
    external_processor_server::ExternalProcessor, processing_request, processing_response,
};
use outgate_journey::{
    denial::{Denial, DenyCode},
    gate::still_allowed,
};
use outgate_plane::{Core, answer::Challenge};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{ControlPlane, data_plane, exchange::Exchange, metadata, refusal, scrub::Ending};

/// What Envoy's access log says of a stream that this control plane cut.
pub(crate) const CUT: &str = "outgate_cut";

type Answers = mpsc::Sender<Result<ProcessingResponse, Status>>;

#[tonic::async_trait]
impl ExternalProcessor for ControlPlane {
    type ProcessStream =
        Pin<Box<dyn Stream<Item = Result<ProcessingResponse, Status>> + Send + 'static>>;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        let plane = data_plane(request.extensions());
        let role = request.metadata().get("role").cloned();
        let role = role.as_ref().and_then(|role| role.to_str().ok());
        let messages = request.into_inner();
        let (answers, stream) = mpsc::channel(4);
        let control = self.clone();
        match role {
            Some("hold") => {
                tokio::spawn(async move { control.hold(&plane, messages, answers).await })
            }
            Some("scrub") => {
                tokio::spawn(async move { control.scrub(&plane, messages, answers).await })
            }
            _ => {
                return Err(Status::invalid_argument(
                    "metadata `role` is missing or unknown",
                ));
            }
        };
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

impl ControlPlane {
    async fn hold(
        &self,
        plane: &str,
        mut messages: Streaming<ProcessingRequest>,
        answers: Answers,
    ) {
        // A stream that just stops would be Envoy's leave to go on alone.
        let Some(ending) = Ending::reserve(&answers).await else {
            return;
        };
        let Ok(Some(first)) = messages.message().await else {
            return;
        };
        // What was let through and is not known here could not be cut later.
        let id = first
            .metadata_context
            .as_ref()
            .and_then(metadata::request_id);
        let exchange = id.and_then(|id| self.exchanges.find(plane, id));
        let Some(exchange) = exchange else {
            let _ = answers.send(Ok(cut(DenyCode::InternalFault, ""))).await;
            return;
        };
        exchange.hold();
        if let Some(code) = self
            .hold_until_over(&exchange, first, &mut messages, &answers)
            .await
        {
            exchange.cut(code);
            let _ = answers.send(Ok(cut(code, &exchange.request_id))).await;
            // Envoy ends the stream once it has reset what it held.
            while let Ok(Some(_)) = messages.message().await {}
        }
        exchange.let_go();
        ending.by_envoy();
    }

    /// Holds the exchange until Envoy lets go of it, or until it has to end: then says why.
    async fn hold_until_over(
        &self,
        exchange: &Arc<Exchange>,
        first: ProcessingRequest,
        messages: &mut Streaming<ProcessingRequest>,
        answers: &Answers,
    ) -> Option<DenyCode> {
        let reloads = self.core.reloads.subscribe();
        // A policy that came between the verdict and this is not told again.
        if self.core.live().number != exchange.live.number
            && !is_still_allowed(&self.core, exchange)
        {
            return Some(DenyCode::PolicyChanged);
        }
        let mut ending = std::pin::pin!(must_end(&self.core, exchange, reloads));
        let mut message = Some(first);
        loop {
            if let Some(answer) = message.take().and_then(|message| answer(message.request)) {
                answers.send(Ok(answer)).await.ok()?;
            }
            tokio::select! {
                code = ending.as_mut() => return Some(code),
                next = messages.message() => message = Some(next.ok()??),
            }
        }
    }
}

/// Waits until something that is open has to end, and says why.
async fn must_end(
    core: &Core,
    exchange: &Arc<Exchange>,
    mut reloads: watch::Receiver<u64>,
) -> DenyCode {
    loop {
        tokio::select! {
            code = exchange.uses().session_ended() => return code,
            () = exchange.over.cancelled() => {
                return exchange.state().cut.unwrap_or(DenyCode::InternalFault);
            }
            () = core.killing.cancelled() => return DenyCode::ShuttingDown,
            changed = reloads.changed() => {
                if changed.is_err() || !is_still_allowed(core, exchange) {
                    return DenyCode::PolicyChanged;
                }
            }
        }
    }
}

/// Whether a policy that came later still carries a tunnel, and every protocol that requests of it were upgraded to.
/// Requests are judged by the policy of their moment.
fn is_still_allowed(core: &Core, exchange: &Arc<Exchange>) -> bool {
    let policy = &core.live().policy;
    let judged = exchange.tunnel.as_ref().map_or(Ok(()), |tunnel| {
        let upstream = tunnel.carries_bytes.then(|| exchange.upstream()).flatten();
        still_allowed(
            policy,
            tunnel.pass.allowed(),
            tunnel.pass.session(),
            upstream,
        )
    });
    let judged = judged.and_then(|()| {
        exchange.upgraded().into_iter().try_for_each(|stream| {
            let Some(upgrade) = &stream.upgrade else {
                return Ok(());
            };
            still_allowed(
                policy,
                &upgrade.allowed,
                upgrade.session.as_ref(),
                stream.upstream(),
            )
        })
    });
    match judged {
        Ok(()) => true,
        Err(denial) => {
            tracing::info!(code = %denial.code(), why = denial.detail(), "closing what an Envoy carries");
            false
        }
    }
}

/// Nothing is changed of what a hold is shown.
fn answer(request: Option<processing_request::Request>) -> Option<ProcessingResponse> {
    use processing_request::Request as Asked;
    use processing_response::Response as Answer;
    let answer = match request? {
        Asked::RequestHeaders(_) => Answer::RequestHeaders(HeadersResponse::default()),
        Asked::ResponseHeaders(_) => Answer::ResponseHeaders(HeadersResponse::default()),
        Asked::RequestTrailers(_) => Answer::RequestTrailers(TrailersResponse::default()),
        Asked::ResponseTrailers(_) => Answer::ResponseTrailers(TrailersResponse::default()),
        // Bodies are not asked for.
        Asked::RequestBody(_) | Asked::ResponseBody(_) => return None,
    };
    Some(ProcessingResponse {
        response: Some(answer),
        ..ProcessingResponse::default()
    })
}

/// Ends what is held: an answer, where none was begun, else a reset.
fn cut(code: DenyCode, id: &str) -> ProcessingResponse {
    let answer = refusal::refuse(&Denial::new(code), id, Challenge::Destination);
    refusal::processed(&answer, CUT)
}
