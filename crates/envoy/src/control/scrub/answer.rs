//! What is done to one exchange's messages: a state machine that is given what Envoy sends and gives what Envoy is told.
//! Every head gets one answer, every chunk as many as it makes ready at once, the end exactly one.

use std::sync::{Arc, atomic::AtomicU64};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, Response, StatusCode, Uri,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE},
};
use outgate_credential::{BodyFault, CredentialVersion, ScrubFlow, scrub_head};
use outgate_envoy_proto::envoy::service::ext_proc::v3::{
    BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeadersResponse, HttpBody,
    HttpHeaders, HttpTrailers, ProcessingResponse, StreamedBodyResponse, TrailersResponse,
    body_mutation::Mutation, processing_request::Request, processing_response::Response as Answer,
};
use outgate_journey::{
    denial::{Denial, DenyCode},
    outgoing::strip_for_guest,
    policy::InjectionForm,
};

use super::fields;

/// What a coded answer may be unpacked to whatever its size, in bytes.
const FREE: u64 = 8 * 1024 * 1024;
/// And beyond that, how many times what came in: text is hardly ever packed tighter, a bomb a thousand times.
const MOST_FOLD: u64 = 100;
/// How much of what is ready is said at once, in bytes.
const AT_ONCE: usize = 64 * 1024;

/// Why an exchange cannot go on.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is refused.
    Refused(Denial),
    /// The upstream's body breaks off, after its head was let on.
    Broken(BodyFault),
}

impl Fault {
    fn because(code: DenyCode, why: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self::Refused(Denial::new(code).because(why.into()))
    }
}

/// Gives the version that must not come back. Asked when the answer's head is there: by then Envoy has attached what it had.
pub(super) type ToScrub = Box<dyn Fn() -> Arc<CredentialVersion> + Send>;

/// What is known of an admitted exchange.
pub(super) struct Known {
    /// What must not come back.
    pub(super) scrub: Option<ToScrub>,
    /// What has to be attached here, because only a query can carry it.
    pub(super) query: Option<(Arc<CredentialVersion>, InjectionForm)>,
    /// Counts what was masked.
    pub(super) hits: Arc<AtomicU64>,
}

/// One exchange on its way through.
pub(super) struct Scrubbing {
    known: Option<Known>,
    body: Body,
    then: Then,
}

enum Body {
    /// Its head was not seen.
    Unopened,
    /// Nothing is looked for in it.
    Untouched { chunk: Option<Bytes> },
    /// The credential is taken out of it.
    Scrubbed {
        flow: ScrubFlow,
        /// What came in and what was given out, in bytes.
        came: u64,
        gave: u64,
    },
    /// Its end was seen.
    Over,
}

/// What is said once everything that is ready was said.
#[derive(Default)]
enum Then {
    #[default]
    Nothing,
    Say(Box<ProcessingResponse>),
    /// The last.
    End(Box<ProcessingResponse>),
    /// The last, after what was held back.
    Finish(Box<ProcessingResponse>),
}

impl Scrubbing {
    /// Of an exchange that is not `known` nothing may pass but what Envoy itself answers.
    pub(super) const fn new(known: Option<Known>) -> Self {
        Self {
            known,
            body: Body::Unopened,
            then: Then::Nothing,
        }
    }

    /// Takes a message; `is_local`: of an answer that Envoy made. Take all that [`Scrubbing::next`] gives before the
    /// next one.
    ///
    /// # Errors
    /// The exchange cannot go on.
    pub(super) fn take(&mut self, message: Request, is_local: bool) -> Result<(), Fault> {
        match message {
            Request::RequestHeaders(head) => self.request_head(head),
            Request::ResponseHeaders(head) if is_local => {
                self.local_head(head.end_of_stream);
                Ok(())
            }
            Request::ResponseHeaders(head) => self.response_head(head),
            Request::ResponseBody(chunk) => self.response_chunk(chunk),
            Request::ResponseTrailers(trailers) => self.response_trailers(trailers),
            // Never asked for; whoever asked for them expects something else than this.
            Request::RequestBody(_) | Request::RequestTrailers(_) => Err(Fault::because(
                DenyCode::InternalFault,
                "the request's body was sent to the scrubber",
            )),
        }
    }

    /// What is ready of the body, in one piece: what was held back of one chunk goes out together with the next, and not as
    /// a piece of its own.
    fn pull_joined(&mut self) -> Result<Option<Bytes>, Fault> {
        let Some(first) = self.body.pull().map_err(Fault::Broken)? else {
            return Ok(None);
        };
        let Some(second) = self.body.pull().map_err(Fault::Broken)? else {
            return Ok(Some(first));
        };
        let mut joined = BytesMut::with_capacity(first.len() + second.len());
        joined.extend_from_slice(&first);
        joined.extend_from_slice(&second);
        while joined.len() < AT_ONCE
            && let Some(more) = self.body.pull().map_err(Fault::Broken)?
        {
            joined.extend_from_slice(&more);
        }
        Ok(Some(joined.freeze()))
    }

    /// What Envoy is told next. `None`: nothing before the next message.
    ///
    /// # Errors
    /// [`Fault::Broken`].
    pub(super) fn next(&mut self) -> Result<Option<ProcessingResponse>, Fault> {
        loop {
            if let Some(piece) = self.pull_joined()? {
                return Ok(Some(streamed(piece, false)));
            }
            match std::mem::take(&mut self.then) {
                Then::Nothing => return Ok(None),
                Then::Say(answer) => return Ok(Some(*answer)),
                Then::End(answer) => {
                    self.body = Body::Over;
                    return Ok(Some(*answer));
                }
                Then::Finish(answer) => {
                    if let Body::Scrubbed { flow, .. } = &mut self.body {
                        flow.finish().map_err(Fault::Broken)?;
                    }
                    self.then = Then::End(answer);
                }
            }
        }
    }

    fn request_head(&mut self, head: HttpHeaders) -> Result<(), Fault> {
        let known = self.known.as_ref().ok_or_else(not_known)?;
        let mut mutation = None;
        if let Some((lease, form)) = &known.query {
            let mut target = target_of(head)?;
            lease
                .attach(form, &mut HeaderMap::new(), &mut target)
                .map_err(|fault| {
                    Fault::because(DenyCode::CredentialUnavailable, fault.to_string())
                })?;
            let target = target
                .path_and_query()
                .map_or("/", |target| target.as_str());
            mutation = Some(HeaderMutation {
                set_headers: vec![fields::set(":path", target.as_bytes(), false)],
                ..HeaderMutation::default()
            });
        }
        self.then = Then::say(Answer::RequestHeaders(head_answer(mutation)));
        Ok(())
    }

    /// A denial, ours or Envoy's own: no upstream had a part in it.
    fn local_head(&mut self, is_all: bool) {
        self.body = if is_all {
            Body::Over
        } else {
            Body::Untouched { chunk: None }
        };
        self.then = Then::say(Answer::ResponseHeaders(head_answer(None)));
    }

    fn response_head(&mut self, head: HttpHeaders) -> Result<(), Fault> {
        let known = self.known.as_ref().ok_or_else(not_known)?;
        let read = fields::read(head.headers).and_then(|read| Some((read.status?, read.fields)));
        let (status, before) =
            read.ok_or_else(|| Fault::because(DenyCode::UpstreamProtocol, "a malformed head"))?;
        let is_switch = status == StatusCode::SWITCHING_PROTOCOLS;
        let mut parts = Response::new(()).into_parts().0;
        parts.status = status;
        parts.headers = before.clone();
        // Before anything is stripped: the fields that say how the body is coded may be named by `Connection`.
        self.body = match &known.scrub {
            Some(to_scrub) => {
                let lease = to_scrub();
                let hits = Arc::clone(&known.hits);
                // What follows a 101 is no body, and in no coding.
                let is_body = !head.end_of_stream && !is_switch;
                let flow =
                    scrub_head(&mut parts, is_body, lease.scrubber(), hits).map_err(|error| {
                        Fault::because(DenyCode::ResponseUnscrubbable, error.to_string())
                    })?;
                Body::Scrubbed {
                    flow,
                    came: 0,
                    gave: 0,
                }
            }
            None => Body::Untouched { chunk: None },
        };
        strip(&mut parts.headers);
        if is_switch {
            parts.headers.remove(CONTENT_LENGTH);
        }
        if head.end_of_stream {
            self.body = Body::Over;
        }
        let mutation = fields::changes(&before, &parts.headers);
        self.then = Then::say(Answer::ResponseHeaders(head_answer(mutation)));
        Ok(())
    }

    fn response_chunk(&mut self, message: HttpBody) -> Result<(), Fault> {
        match &mut self.body {
            Body::Unopened | Body::Over => return Err(out_of_turn()),
            Body::Untouched { chunk } => *chunk = Some(message.body),
            Body::Scrubbed { flow, came, .. } => {
                *came = came.saturating_add(message.body.len() as u64);
                flow.push(message.body);
            }
        }
        if message.end_of_stream {
            self.then = Then::Finish(Box::new(streamed(Bytes::new(), true)));
        }
        Ok(())
    }

    fn response_trailers(&mut self, message: HttpTrailers) -> Result<(), Fault> {
        let before = fields::read(message.trailers)
            .ok_or_else(|| Fault::because(DenyCode::UpstreamProtocol, "malformed trailers"))?
            .fields;
        let mut after = before.clone();
        match &self.body {
            Body::Unopened | Body::Over => return Err(out_of_turn()),
            Body::Untouched { .. } => {}
            Body::Scrubbed { flow, .. } => flow.scrub_trailers(&mut after),
        }
        let answer = Answer::ResponseTrailers(TrailersResponse {
            header_mutation: fields::changes(&before, &after),
        });
        self.then = Then::Finish(Box::new(answered(answer)));
        Ok(())
    }
}

impl Body {
    fn pull(&mut self) -> Result<Option<Bytes>, BodyFault> {
        match self {
            Self::Unopened | Self::Over => Ok(None),
            Self::Untouched { chunk } => Ok(chunk.take().filter(|chunk| !chunk.is_empty())),
            Self::Scrubbed { flow, came, gave } => {
                let piece = flow.pull()?;
                *gave = gave.saturating_add(piece.as_ref().map_or(0, |it| it.len() as u64));
                // Envoy takes what it is given as fast as it is given, and keeps it for a guest that reads nothing.
                if flow.decodes() && *gave > FREE + came.saturating_mul(MOST_FOLD) {
                    return Err(BodyFault::Corrupt);
                }
                Ok(piece)
            }
        }
    }
}

impl Then {
    fn say(answer: Answer) -> Self {
        Self::Say(Box::new(answered(answer)))
    }
}

fn not_known() -> Fault {
    Fault::because(DenyCode::InternalFault, "the exchange was not admitted")
}

fn out_of_turn() -> Fault {
    Fault::because(
        DenyCode::InternalFault,
        "a part of the answer is out of turn",
    )
}

/// What of a request's head the credential is put into. As everywhere, what cannot be read is not sent on.
fn target_of(head: HttpHeaders) -> Result<Uri, Fault> {
    fields::read(head.headers)
        .and_then(|head| Uri::from_maybe_shared(Bytes::from(head.path?)).ok())
        .ok_or_else(|| Fault::because(DenyCode::MalformedRequest, "a malformed head"))
}

/// As the native plane; but what is between two hops is Envoy's own, and it takes that out by itself.
fn strip(headers: &mut HeaderMap) {
    let envoys = [CONNECTION, UPGRADE, TRANSFER_ENCODING].map(|name| {
        let values: Vec<_> = headers.get_all(&name).iter().cloned().collect();
        (name, values)
    });
    strip_for_guest(headers);
    for (name, values) in envoys {
        for value in values {
            headers.append(name.clone(), value);
        }
    }
}

fn head_answer(header_mutation: Option<HeaderMutation>) -> HeadersResponse {
    HeadersResponse {
        response: Some(CommonResponse {
            header_mutation,
            ..CommonResponse::default()
        }),
    }
}

fn streamed(body: Bytes, end_of_stream: bool) -> ProcessingResponse {
    answered(Answer::ResponseBody(BodyResponse {
        response: Some(CommonResponse {
            body_mutation: Some(BodyMutation {
                mutation: Some(Mutation::StreamedResponse(StreamedBodyResponse {
                    body,
                    end_of_stream,
                    ..StreamedBodyResponse::default()
                })),
            }),
            ..CommonResponse::default()
        }),
    }))
}

fn answered(answer: Answer) -> ProcessingResponse {
    ProcessingResponse {
        response: Some(answer),
        ..ProcessingResponse::default()
    }
}
