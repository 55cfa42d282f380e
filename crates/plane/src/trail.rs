//! The record that follows one exchange and is written exactly once, whatever becomes of the exchange: a record
//! that was forgotten, by an early return or a panic, writes itself on drop as a fault.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{Core, clock, tokens::Tokens, view::BodyView};
use http::{Method, StatusCode, Version};
use outgate_clock::Clock;
use outgate_control::sessions::Activity;
use outgate_journey::{
    denial::{Denial, DenyCode},
    destination::Destination,
    gate::TunnelTreatment,
    inject::Attachment,
    outgoing::{resembles_token, reveals_token},
    record::{Caller, DecisionRecord, Ending, Entry, Verdict},
    session::{Session, SessionEnd, UnixSeconds},
};

const MAX_HOST: usize = 255;
const MAX_PATH: usize = 1024;
const MAX_METHOD: usize = 32;

/// What one exchange has carried. Shared between its two directions and its record.
#[derive(Default)]
pub struct Meter {
    /// Towards the upstream.
    pub bytes_out: AtomicU64,
    /// Towards the client.
    pub bytes_in: AtomicU64,
    /// Credentials taken out of the answer.
    pub scrubbed: Arc<AtomicU64>,
    /// Why the gateway cut it, if it did.
    pub cut: OnceLock<DenyCode>,
    /// The beginnings of its bodies, where they are kept.
    view: OnceLock<BodyView>,
    /// Of the session whose exchange it is: bytes that move keep it from being idle.
    activity: OnceLock<Arc<Activity>>,
}

impl Meter {
    /// Says whose exchange it is.
    pub fn is_of(&self, activity: &Arc<Activity>) {
        let _ = self.activity.set(Arc::clone(activity));
    }

    /// Counts bytes towards the upstream.
    pub fn count_out(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
        self.note_activity();
    }

    /// Counts bytes towards the guest.
    pub fn count_in(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        self.note_activity();
    }

    /// Counts bytes of a decrypted body towards the upstream, as the guest sent them.
    pub fn carry_out(&self, data: &[u8]) {
        self.count_out(data.len());
        if let Some(view) = self.view.get() {
            view.keep_out(data);
        }
    }

    /// Counts bytes of a decrypted body towards the guest, as the guest gets them.
    pub fn carry_in(&self, data: &[u8]) {
        self.count_in(data.len());
        if let Some(view) = self.view.get() {
            view.keep_in(data);
        }
    }

    fn note_activity(&self) {
        if let Some(activity) = self.activity.get() {
            activity.note();
        }
    }
}

/// One exchange's record in the making.
pub struct Trail {
    core: Arc<Core>,
    record: Option<Box<DecisionRecord>>,
    started: Instant,
    meter: Arc<Meter>,
    activity: Option<Arc<Activity>>,
    /// How long it took, where somebody else measured that.
    lasted: Option<Duration>,
    /// Whether its end was seen, so that it is not taken for broken off.
    ended: bool,
}

/// What a guest is told, and the record says, of an exchange that ended with its session.
pub fn code_of(activity: &Activity) -> DenyCode {
    activity
        .why()
        .map_or(DenyCode::SessionRevoked, SessionEnd::code)
}

impl Trail {
    /// Begins a record of what `client` asked for.
    pub fn begin(core: &Arc<Core>, entry: Entry, client: SocketAddr) -> Self {
        let time = clock::machine().wall_ms();
        let record = DecisionRecord::begin(core.next_request_id(), time, entry, client);
        Self {
            core: Arc::clone(core),
            record: Some(Box::new(record)),
            started: Instant::now(),
            meter: Arc::default(),
            activity: None,
            lasted: None,
            ended: false,
        }
    }

    /// The guest's socket.
    pub fn client(&self) -> SocketAddr {
        self.record
            .as_ref()
            .map_or(SocketAddr::from(([0, 0, 0, 0], 0)), |record| record.client)
    }

    /// Whether every stage passed.
    pub fn is_allowed(&self) -> bool {
        self.record
            .as_ref()
            .is_some_and(|record| record.verdict == Verdict::Allowed)
    }

    /// Notes how long the exchange took, from the plane that carried it.
    pub fn lasted(&mut self, duration: Duration) {
        self.lasted = Some(duration);
    }

    /// Notes that the end of the exchange was seen.
    pub fn ended(&mut self) {
        self.ended = true;
    }

    /// Notes that one side went away early.
    pub fn aborted(&mut self, why: String) {
        let ending = self.why_it_ended(Ending::Aborted);
        self.note(|record| {
            record.ending = ending;
            record.detail = why;
        });
    }

    /// Keeps the beginnings of what the exchange carries, if it is decrypted traffic and the owner said so.
    pub fn keep_bodies(&self) {
        let most = self.core.plane.sessions.view_rules().bodies;
        let is_decrypted = |record: &DecisionRecord| record.entry == Entry::Bumped;
        if most > 0 && self.record.as_deref().is_some_and(is_decrypted) {
            let _ = self.meter.view.set(BodyView::new(most));
        }
    }

    /// The counters that the exchange's bodies share with the record.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// The id in answers and records.
    pub fn request_id(&self) -> &str {
        self.record.as_ref().map_or("", |record| &record.request_id)
    }

    fn note(&mut self, note: impl FnOnce(&mut DecisionRecord)) {
        if let Some(record) = &mut self.record {
            note(record);
        }
    }

    /// Notes the request line. `host` is what was written, until a canonical name is known. A session token has no
    /// place in a record, wherever the guest put it.
    pub fn note_request(
        &mut self,
        method: &Method,
        host: Option<&str>,
        path: &str,
        version: Version,
    ) {
        let (tokens, now) = (&self.core.plane.tokens, clock::unix_now());
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
    pub fn note_dialled(&mut self, dialled: SocketAddr) {
        self.note(|record| {
            record.host = Some(dialled.ip().to_string());
            record.port = Some(dialled.port());
        });
    }

    /// Notes the name that was asked for.
    pub fn note_name(&mut self, name: &str) {
        let (tokens, now) = (&self.core.plane.tokens, clock::unix_now());
        let name = clean(name, MAX_HOST, tokens, now);
        self.note(|record| record.host = Some(name));
    }

    /// Notes the destination once it has a canonical name.
    pub fn note_destination(&mut self, destination: &Destination) {
        self.note(|record| {
            record.host = Some(destination.host().as_str().to_owned());
            record.port = Some(destination.port().get());
        });
    }

    /// Notes whose exchange it is, and from then on whether that session was ended.
    pub fn note_session(&mut self, session: &Session) {
        if self.is_of(session) {
            return;
        }
        let activity = self.core.plane.sessions.activity(session.claims());
        self.meter.is_of(&activity);
        self.activity = Some(activity);
        self.note(|record| {
            record.session = Some(session.id().clone());
            record.token_id = Some(Arc::clone(&session.claims().token_id));
        });
    }

    /// Whether it was noted already: a tunnel's session is most often that of its requests, too.
    fn is_of(&self, session: &Session) -> bool {
        let is_same = |record: &DecisionRecord| {
            record.session.as_ref() == Some(session.id())
                && record.token_id.as_ref() == Some(&session.claims().token_id)
        };
        self.activity.is_some() && self.record.as_deref().is_some_and(is_same)
    }

    /// Notes who called, by which token.
    pub fn note_caller(&mut self, caller: Caller, token_id: &Arc<str>) {
        self.note(|record| {
            record.caller = Some(caller);
            record.token_id = Some(Arc::clone(token_id));
        });
    }

    /// What the exchange's session does, and the signal that ends it.
    pub fn activity(&self) -> Option<&Arc<Activity>> {
        self.activity.as_ref()
    }

    /// Why the exchange's session is over, if it is.
    pub fn session_over(&self) -> Option<DenyCode> {
        let activity = self.activity.as_ref()?;
        activity.cut().is_cancelled().then(|| code_of(activity))
    }

    /// Waits until the exchange's session is over; for ever if it has none.
    pub async fn session_ended(&self) -> DenyCode {
        match &self.activity {
            Some(activity) => {
                activity.cut().cancelled().await;
                code_of(activity)
            }
            None => std::future::pending().await,
        }
    }

    /// Notes how the tunnel is served.
    pub fn note_treatment(&mut self, treatment: TunnelTreatment) {
        self.note(|record| {
            record.posture = match treatment {
                TunnelTreatment::Bump => Some("bump"),
                TunnelTreatment::PassThrough => Some("pass-through"),
                TunnelTreatment::PlainHttp => None,
            };
        });
    }

    /// Notes what is attached.
    pub fn note_attachment<L>(&mut self, attachment: &Attachment<L>) {
        self.note(|record| {
            record.injected = attachment
                .injection()
                .map(|injection| injection.credential.clone());
        });
    }

    /// Notes the upstream's address.
    pub fn note_upstream(&mut self, upstream: SocketAddr) {
        self.note(|record| record.upstream = Some(upstream));
    }

    /// The upstream's address, once it was dialled.
    pub fn upstream(&self) -> Option<SocketAddr> {
        self.record.as_ref()?.upstream
    }

    /// Notes that every stage passed.
    pub fn allow(&mut self, rule: &str) {
        let decided_after = self.started.elapsed();
        self.note(|record| {
            record.verdict = Verdict::Allowed;
            record.rule = Some(rule.to_owned());
            record.decided_after = decided_after;
        });
    }

    /// Notes the status that the client gets.
    pub fn answer(&mut self, status: StatusCode) {
        let answered_after = self.started.elapsed();
        self.note(|record| {
            record.status = Some(status.as_u16());
            record.answered_after = Some(answered_after);
        });
    }

    /// Notes a refusal: at any stage before the upstream's answer is let through.
    pub fn deny(&mut self, denial: &Denial) {
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
    pub fn cut(&mut self, code: DenyCode) {
        self.note(|record| record.ending = Ending::Cut(code));
    }

    /// The exchange is complete: writes the record.
    pub fn complete(mut self) {
        self.write();
    }

    /// The exchange broke off: writes the record.
    pub fn abort(mut self, why: &dyn std::error::Error) {
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
        } else if self.core.killing.is_cancelled() {
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
        record.ended_after = self.lasted.unwrap_or_else(|| self.started.elapsed());
        let view = self.meter.view.get();
        let bodies = view.and_then(|view| view.take(&self.core.plane.tokens, clock::unix_now()));
        self.core.record(record, bodies);
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        let Some(record) = &self.record else { return };
        // Dropped while allowed and not complete: the other side went away, or the gateway cut the connection.
        if !self.ended && record.verdict == Verdict::Allowed && record.ending == Ending::Completed {
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
