//! A judged request in the shape in which it leaves: without what must not leave, with the credential, and in the
//! form of the protocol that the upstream speaks.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, HOST, UPGRADE},
    request::Parts,
    uri::PathAndQuery,
};
use hyper::body::Incoming;
use outgate_credential::{Scrubber, request_accept_encoding};
use outgate_journey::{
    denial::{Denial, DenyCode},
    destination::{Destination, Transport},
    outgoing::{strip_for_guest, strip_for_upstream},
    policy::AllowedDestination,
};
use outgate_plane::{Live, clock::unix_now, trail::Meter, trail::Trail};

use crate::{
    body::RequestBody,
    carrier::Carrier,
    forward::Plan,
    pool::{Connected, PoolKey, Sender},
    upstream,
};

/// A request on its way out.
pub(crate) struct Outgoing<'a> {
    carrier: &'a Carrier,
    allowed: AllowedDestination,
    parts: Option<Parts>,
    version: Version,
    is_upgrade: bool,
    scrubber: Option<Arc<Scrubber>>,
}

impl<'a> Outgoing<'a> {
    /// Takes out what must not leave and attaches the credential.
    ///
    /// # Errors
    /// [`DenyCode::CredentialUnavailable`] where the credential does not fit its form.
    pub(crate) fn prepare(
        carrier: &'a Carrier,
        live: &Live,
        plan: &Plan,
        mut parts: Parts,
    ) -> Result<Self, Denial> {
        let allowed = plan.admission().permit().allowed().clone();
        let rule = allowed.rule();
        let headers = &mut parts.headers;
        let is_upgrade = headers.contains_key(UPGRADE);
        strip_for_upstream(
            headers,
            &live.policy,
            rule,
            &carrier.shared.plane.tokens,
            unix_now(),
        );
        if is_upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        }
        if plan.is_injected_destination() {
            // What comes back is read for the credential; compressed, it would have to be decoded first.
            request_accept_encoding(headers);
        }
        if let Some(attachment) = plan.attachment()
            && let Some(injection) = attachment.injection()
        {
            attachment
                .lease()
                .attach(&injection.form, headers, &mut parts.uri)
                .map_err(|fault| {
                    Denial::new(DenyCode::CredentialUnavailable)
                        .because(fault.to_string())
                        .by(&rule.id)
                })?;
        }
        Ok(Self {
            carrier,
            version: parts.version,
            is_upgrade,
            scrubber: plan
                .attachment()
                .map(|attachment| Arc::clone(attachment.lease().scrubber())),
            parts: Some(parts),
            allowed,
        })
    }

    /// Whether the guest's leg is HTTP/2; then the upstream's is, where it can be.
    pub(crate) fn wants_http2(&self) -> bool {
        self.version == Version::HTTP_2
    }

    /// The size of its head, in bytes, as HTTP/1.1 would write it.
    pub(crate) fn head_bytes(&self) -> usize {
        let Some(parts) = &self.parts else { return 0 };
        let target = parts
            .uri
            .path_and_query()
            .map_or(1, |path| path.as_str().len());
        let fields = parts.headers.iter();
        let fields: usize = fields
            .map(|(name, value)| name.as_str().len() + value.len() + 4)
            .sum();
        parts.method.as_str().len() + target + fields + 14
    }

    /// Sends on a kept connection if there is one, on a new one otherwise. A kept connection that the upstream had
    /// closed gives the request back unsent; nothing that may have been sent is sent twice.
    ///
    /// # Errors
    /// What stands between the gateway and the head of the upstream's answer.
    pub(crate) async fn send(
        &mut self,
        live: &Arc<Live>,
        key: &PoolKey,
        mut body: RequestBody,
        trail: &mut Trail,
    ) -> Result<(Response<Incoming>, Connected), Denial> {
        let allowed = self.allowed.clone();
        let rule = &allowed.rule().id;
        loop {
            let mut connected = tokio::select! {
                connected = upstream::obtain(&self.carrier.shared, live, &allowed, key) => connected?,
                code = trail.session_ended() => return Err(Denial::new(code).by(rule)),
            };
            trail.note_upstream(connected.peer);
            let Some(parts) = self.parts.take() else {
                return Err(DenyCode::InternalFault.into());
            };
            let is_http2 = matches!(connected.sender, Sender::Http2(_));
            let mut request = shape(parts, allowed.destination(), is_http2, body);
            if !is_http2 {
                self.listen_for_interim(&mut request);
            }
            let sent = connected.sender.send(request);
            let answered = self.wait(sent, live.timeouts.response, trail).await;
            match answered.map_err(|denial| denial.by(rule))? {
                Ok(response) => return Ok((response, connected)),
                Err(mut failed) => match failed.take_message().filter(|_| connected.reused) {
                    Some(unsent) => {
                        let (parts, unsent) = unsent.into_parts();
                        self.parts = Some(parts);
                        body = unsent;
                    }
                    None => return Err(self.explain(trail.meter(), &failed.into_error()).by(rule)),
                },
            }
        }
    }

    /// Waits for the answer's head, and meanwhile lets interim answers through. The wait ends with the session.
    async fn wait<T>(
        &mut self,
        answer: impl Future<Output = T>,
        timeout: Duration,
        trail: &Trail,
    ) -> Result<T, Denial> {
        let mut answer = std::pin::pin!(answer);
        let mut quiet = std::pin::pin!(tokio::time::sleep(timeout));
        let sent = || trail.meter().bytes_out.load(Ordering::Relaxed);
        let mut seen = sent();
        let guard = &self.carrier.guard;
        loop {
            tokio::select! {
                biased;
                // The connection writes what is queued whenever it is polled, as it is here.
                () = guard.informational_queued() => {}
                answer = &mut answer => return Ok(answer),
                // An upload that makes progress has not been answered because it is not over.
                () = quiet.as_mut() => {
                    if sent() == seen {
                        return Err(Denial::new(DenyCode::UpstreamTimeout).because("waiting for the answer"));
                    }
                    seen = sent();
                    quiet.as_mut().reset(tokio::time::Instant::now() + timeout);
                }
                code = trail.session_ended() => return Err(code.into()),
            }
        }
    }

    /// 1xx answers pass where both legs are HTTP/1.1. `100` is each leg's own business.
    fn listen_for_interim(&self, request: &mut Request<RequestBody>) {
        if self.version != Version::HTTP_11 || self.is_upgrade {
            return;
        }
        let guard = Arc::clone(&self.carrier.guard);
        let scrubber = self.scrubber.clone();
        hyper::ext::on_informational(request, move |answer| {
            let status = answer.status();
            if status != StatusCode::CONTINUE {
                let head = interim_head(status, answer.headers(), scrubber.as_deref());
                guard.queue_informational(&head);
            }
        });
    }

    /// Whose fault a failed exchange is: the guest's body may have broken off, or the gateway may have cut it.
    fn explain(&self, meter: &Meter, error: &hyper::Error) -> Denial {
        if let Some(code) = meter.cut.get() {
            return (*code).into();
        }
        if let Some(fault) = self.carrier.guard.fault() {
            return outgate_plane::answer::denial_of(fault);
        }
        let source = std::error::Error::source(error)
            .map(ToString::to_string)
            .unwrap_or_default();
        Denial::new(DenyCode::UpstreamProtocol).because(format!("{error}: {source}"))
    }
}

/// The request for one protocol: HTTP/1.1 wants `Host` and a path, HTTP/2 wants `:scheme` and `:authority`.
fn shape(
    mut parts: Parts,
    destination: &Destination,
    is_http2: bool,
    body: RequestBody,
) -> Request<RequestBody> {
    let authority = destination.authority();
    let path = parts
        .uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    if is_http2 {
        let scheme = if destination.transport() == Transport::Plain {
            "http"
        } else {
            "https"
        };
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(authority)
            .path_and_query(path)
            .build();
        parts.uri = uri.unwrap_or_default();
        parts.version = Version::HTTP_2;
        parts.headers.remove(HOST);
        parts.headers.remove(CONNECTION);
    } else {
        parts.uri = Uri::from(path);
        parts.version = Version::HTTP_11;
        if let Ok(host) = HeaderValue::from_str(&authority) {
            parts.headers.insert(HOST, host);
        }
    }
    Request::from_parts(parts, body)
}

fn interim_head(status: StatusCode, headers: &HeaderMap, scrubber: Option<&Scrubber>) -> Vec<u8> {
    let mut headers = headers.clone();
    strip_for_guest(&mut headers);
    let mut head = format!(
        "HTTP/1.1 {} {}\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or("")
    )
    .into_bytes();
    for (name, value) in &headers {
        let scrubbed = scrubber.and_then(|scrubber| scrubber.header_value(value));
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(scrubbed.as_ref().unwrap_or(value).as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}
