//! Carries one stream's messages through its [`Scrubbing`]. A message is read when all answers to the one before are
//! taken, so Envoy's flow control on the gRPC stream reaches from the guest back to the upstream, and nothing piles up
//! here but the channel's few places.

use futures_util::{Stream, StreamExt};
use outgate_envoy_proto::envoy::service::ext_proc::v3::ProcessingRequest;
use tonic::Status;

use super::{
    answer::{Fault, Scrubbing},
    ending::Answers,
    fields,
};

/// How a stream ended that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// Envoy ended it.
    Complete,
    /// It broke.
    Broken,
}

/// Carries until Envoy ends the stream.
///
/// # Errors
/// Why the exchange cannot go on.
pub(super) async fn carry(
    scrubbing: &mut Scrubbing,
    first: ProcessingRequest,
    messages: &mut (impl Stream<Item = Result<ProcessingRequest, Status>> + Unpin),
    answers: &Answers,
) -> Result<Over, Fault> {
    let mut message = first;
    loop {
        let is_local = fields::is_local(&message.attributes);
        if let Some(request) = message.request {
            scrubbing.take(request, is_local)?;
        }
        while let Some(answer) = scrubbing.next()? {
            if answers.send(Ok(answer)).await.is_err() {
                return Ok(Over::Broken);
            }
        }
        message = match messages.next().await {
            Some(Ok(message)) => message,
            Some(Err(_)) => return Ok(Over::Broken),
            None => return Ok(Over::Complete),
        };
    }
}
