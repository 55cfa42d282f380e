//! The record that follows one exchange and is written exactly once, whatever becomes of the exchange: a record
//! that was forgotten, by an early return or a panic, writes itself on drop as a fault.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use http::{Method, StatusCode, Version};
use outgate_clock::Clock;
use outgate_control::sessions::Activity;
use outgate_journey::{
    denial::{Denial, DenyCode},
    destination::Destination,
    gate::TunnelTreatment,
    inject::Attachment,
    outgoing::{resembles_token, reveals_token},
    record::{AuditEvent, AuditSink, DecisionRecord, Ending, Entry, Verdict},
    session::{Session, SessionEnd, UnixSeconds},
};

use crate::{arrival::Arrival, body::Meter, clock, shared::Shared, tokens::Tokens};

const MAX_HOST: usize = 255;
const MAX_PATH: usize = 1024;
const MAX_METHOD: usize = 32;

/// One exchange's record in the making.
pub(crate) struct Trail {
    shared: Arc<Shared>,
    record: Option<Box<DecisionRecord>>,
    started: Instant,
    meter: Arc<Meter>,
    activity: Option<Arc<Activity>>,
}

/// What a guest is told, and the record says, of an exchange that ended with its session.
pub(crate) fn code_of(activity: &Activity) -> DenyCode {
    activity
        .why()
        .map_or(DenyCode::SessionRevoked, SessionEnd::code)
}

impl Trail {
    /// Begins a record; of whose it is, what its socket says is known from here on.
    pub(crate) fn begin(shared: &Arc<Shared>, entry: Entry, arrival: &Arrival) -> Self {
        let time = clock::machine().wall_ms();
        let record = DecisionRecord::begin(shared.next_request_id(), time, entry, arrival.client);
        let mut trail = Self {
            shared: Arc::clone(shared),
            record: Some(Box::new(record)),
            started: Instant::now(),
            meter: Arc::default(),
            activity: None,
        };
        if arrival.own.is_some()
            && let Ok(Some(session)) = arrival.attribute_by_listener(&shared.plane)
        {
            trail.note_session(&session);
        }
        trail
    }

    /// The counters that the exchange's bodies share with the record.
    pub(crate) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// The id in answers and records.
    pub(crate) fn request_id(&self) -> &str {
        self.record.as_ref().map_or("", |record| &record.request_id)
    }

    fn note(&mut self, note: impl FnOnce(&mut DecisionRecord)) {
        if let Some(record) = &mut self.record {
            note(record);
        }
    }

    /// Notes the request line. `host` is what was written, until a canonical name is known. A session token has no
    /// place in a record, wherever the guest put it.
    pub(crate) fn note_request(
        &mut self,
        method: &Method,
        host: Option<&str>,
        path: &str,
        version: Version,
    ) {
        let (tokens, now) = (&self.shared.plane.tokens, clock::unix_now());
        let clean = |text: &str, most| clean(text, most, tokens, now);
        let method = clean(method.as_str(), MAX_METHOD);
        let host = host.map(|host| clean(host, MAX_HOST));
        let path = (!path.is_empty()).then(|| clean(path, MAX_PATH));
        self.note(|record| {
            record.method = Some(method);
            if host.is_some() {
                record.host = host;
                record.port = None;
            }
            record.path = path;
            record.http_version = match version {
                Version::HTTP_10 => Some("HTTP/1.0"),
                Version::HTTP_11 => Some("HTTP/1.1"),
                Version::HTTP_2 => Some("HTTP/2"),
                _ => None,
            };
        });
    }

    /// Notes the address that a captured connection was for, until it names a host.
    pub(crate) fn note_dialled(&mut self, dialled: SocketAddr) {
        self.note(|record| {
            record.host = Some(dialled.ip().to_string());
            record.port = Some(dialled.port());
        });
    }

    /// Notes the name that was asked for.
    pub(crate) fn note_name(&mut self, name: &str) {
        let (tokens, now) = (&self.shared.plane.tokens, clock::unix_now());
        let name = clean(name, MAX_HOST, tokens, now);
        self.note(|record| record.host = Some(name));
    }

    /// Notes the destination once it has a canonical name.
    pub(crate) fn note_destination(&mut self, destination: &Destination) {
        self.note(|record| {
            record.host = Some(destination.host().as_str().to_owned());
            record.port = Some(destination.port().get());
        });
    }

    /// Notes whose exchange it is, and from then on whether that session was ended.
    pub(crate) fn note_session(&mut self, session: &Session) {
        let activity = self.shared.plane.sessions.activity(session.claims());
        self.meter.is_of(&activity);
        self.activity = Some(activity);
        self.note(|record| {
            record.session = Some(session.id().clone());
            record.token_id = Some(Arc::clone(&session.claims().token_id));
        });
    }

    /// What the exchange's session does, and the signal that ends it.
    pub(crate) fn activity(&self) -> Option<&Arc<Activity>> {
        self.activity.as_ref()
    }

    /// Why the exchange's session is over, if it is.
    pub(crate) fn session_over(&self) -> Option<DenyCode> {
        let activity = self.activity.as_ref()?;
        activity.cut().is_cancelled().then(|| code_of(activity))
    }

    /// Waits until the exchange's session is over; for ever if it has none.
    pub(crate) async fn session_ended(&self) -> DenyCode {
        match &self.activity {
            Some(activity) => {
                activity.cut().cancelled().await;
                code_of(activity)
            }
            None => std::future::pending().await,
        }
    }

    /// Notes how the tunnel is served.
    pub(crate) fn note_treatment(&mut self, treatment: TunnelTreatment) {
        self.note(|record| {
            record.posture = match treatment {
                TunnelTreatment::Bump => Some("bump"),
                TunnelTreatment::PassThrough => Some("pass-through"),
                TunnelTreatment::PlainHttp => None,
            };
        });
    }

    /// Notes what is attached.
    pub(crate) fn note_attachment<L>(&mut self, attachment: &Attachment<L>) {
        self.note(|record| {
            record.injected = attachment
                .injection()
                .map(|injection| injection.credential.clone());
        });
    }

    /// Notes the upstream's address.
    pub(crate) fn note_upstream(&mut self, upstream: SocketAddr) {
        self.note(|record| record.upstream = Some(upstream));
    }

    /// The upstream's address, once it was dialled.
    pub(crate) fn upstream(&self) -> Option<SocketAddr> {
        self.record.as_ref()?.upstream
    }

    /// Notes that every stage passed.
    pub(crate) fn allow(&mut self, rule: &str) {
        let decided_after = self.started.elapsed();
        self.note(|record| {
            record.verdict = Verdict::Allowed;
            record.rule = Some(rule.to_owned());
            record.decided_after = decided_after;
        });
    }

    /// Notes the status that the client gets.
    pub(crate) fn answer(&mut self, status: StatusCode) {
        let answered_after = self.started.elapsed();
        self.note(|record| {
            record.status = Some(status.as_u16());
            record.answered_after = Some(answered_after);
        });
    }

    /// Notes a refusal: at any stage before the upstream's answer is let through.
    pub(crate) fn deny(&mut self, denial: &Denial) {
        let decided_after = self.started.elapsed();
        self.note(|record| {
            record.verdict = Verdict::Denied(denial.code());
            record.detail = denial.detail().to_owned();
            record.decided_after = decided_after;
            if record.session.is_none() {
                record.session = denial.session().cloned();
            }
            if let Some(rule) = denial.rule() {
                record.rule = Some(rule.as_str().to_owned());
            }
        });
    }

    /// Notes that an allowed exchange was cut by the gateway.
    pub(crate) fn cut(&mut self, code: DenyCode) {
        self.note(|record| record.ending = Ending::Cut(code));
    }

    /// The exchange is complete: writes the record.
    pub(crate) fn complete(mut self) {
        self.write();
    }

    /// The exchange broke off: writes the record.
    pub(crate) fn abort(mut self, why: &dyn std::error::Error) {
        let ending = self.why_it_ended(Ending::Aborted);
        self.note(|record| {
            record.ending = ending;
            record.detail = why.to_string();
        });
        self.write();
    }

    /// What the gateway itself did comes before what it looks like from one side.
    fn why_it_ended(&self, otherwise: Ending) -> Ending {
        if let Some(code) = self.meter.cut.get() {
            Ending::Cut(*code)
        } else if let Some(code) = self.session_over() {
            Ending::Cut(code)
        } else if self.shared.killing.is_cancelled() {
            Ending::Cut(DenyCode::ShuttingDown)
        } else {
            otherwise
        }
    }

    fn write(&mut self) {
        let Some(mut record) = self.record.take() else {
            return;
        };
        record.bytes_out = self.meter.bytes_out.load(Ordering::Relaxed);
        record.bytes_in = self.meter.bytes_in.load(Ordering::Relaxed);
        record.scrubbed = self.meter.scrubbed.load(Ordering::Relaxed);
        record.ended_after = self.started.elapsed();
        if let Some(observer) = &self.shared.observer {
            observer(&record);
        }
        self.shared.plane.audit.record(AuditEvent::Decision(record));
        self.shared.count_record();
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        let Some(record) = &self.record else { return };
        // Dropped while allowed and not complete: the other side went away, or the gateway cut the connection.
        if record.verdict == Verdict::Allowed && record.ending == Ending::Completed {
            let ending = self.why_it_ended(Ending::Aborted);
            self.note(|record| record.ending = ending);
        }
        self.write();
    }
}

fn clean(text: &str, most: usize, tokens: &Tokens, now: UnixSeconds) -> String {
    if resembles_token(text) || reveals_token(text, tokens, now) {
        "[session token]".to_owned()
    } else {
        bounded(text, most)
    }
}

fn bounded(text: &str, most: usize) -> String {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}
