//! Decides how what happened reads in OCSF (<https://schema.ocsf.io>): HTTP Activity for a request, Network Activity
//! for a tunnel and for a connection that never became a request, API Activity for an operator's call, Authentication
//! for the life of a session, Detection Finding for an anomaly, Application Lifecycle for what happens to the log
//! itself. What has no home in OCSF stands under `unmapped`, as the schema asks.
//!
//! The structs borrow from the record, so that writing one allocates nothing.

mod anomaly;
mod log;
mod operator;
mod traffic;

use outgate_journey::record::AuditEvent;
use serde::Serialize;

pub(crate) use self::log::{LogChange, LogEvent, OwnRecord, Seal};
use self::{
    anomaly::AnomalyEvent,
    operator::{ActionEvent, SessionEvent},
    traffic::TrafficEvent,
};
use crate::text::Text;

/// The version of the schema that records follow.
pub const OCSF_VERSION: &str = "1.7.0";

/// OCSF's id of an activity that its list does not name.
const OTHER: u8 = 99;

const MAX_NAME: usize = 255;
const MAX_TEXT: usize = 1024;

/// One event in OCSF; serialises without allocating.
#[derive(Serialize)]
#[serde(transparent)]
pub struct OcsfEvent<'a>(Event<'a>);

#[derive(Serialize)]
#[serde(untagged)]
#[expect(
    clippy::large_enum_variant,
    reason = "made, written and dropped in one place; the large one is the usual one"
)]
enum Event<'a> {
    Traffic(TrafficEvent<'a>),
    Action(ActionEvent<'a>),
    Session(SessionEvent<'a>),
    Anomaly(AnomalyEvent<'a>),
}

/// The OCSF event of what happened, to be serialised. Text that a guest chose is bounded here; a JSON writer escapes
/// it.
#[must_use]
pub fn to_ocsf(event: &AuditEvent) -> OcsfEvent<'_> {
    OcsfEvent(match event {
        AuditEvent::Decision(record) => Event::Traffic(traffic::event(record)),
        AuditEvent::Action(record) => Event::Action(operator::action(record)),
        AuditEvent::Session(record) => Event::Session(operator::session(record)),
        AuditEvent::Anomaly(record) => Event::Anomaly(anomaly::event(record)),
    })
}

/// What every event begins with.
#[derive(Serialize)]
struct Head<'a> {
    activity_id: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    activity_name: Option<Text<'a>>,
    category_uid: u8,
    class_uid: u32,
    type_uid: u32,
    time: u64,
}

impl<'a> Head<'a> {
    fn new(class_uid: u32, activity_id: u8, time: u64) -> Self {
        Self {
            activity_id,
            activity_name: None,
            category_uid: u8::try_from(class_uid / 1000).unwrap_or(0),
            class_uid,
            type_uid: class_uid * 100 + u32::from(activity_id),
            time,
        }
    }

    /// With the name that an activity has which the schema does not list.
    fn named(self, activity: Option<Text<'a>>) -> Self {
        Self {
            activity_name: activity,
            ..self
        }
    }
}

#[derive(Serialize)]
struct Metadata<'a> {
    version: &'static str,
    product: Product,
    profiles: &'static [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<Text<'a>>,
}

impl<'a> Metadata<'a> {
    const fn new(profiles: &'static [&'static str], uid: Option<Text<'a>>) -> Self {
        Self {
            version: OCSF_VERSION,
            product: PRODUCT,
            profiles,
            uid,
        }
    }
}

#[derive(Serialize)]
struct Product {
    name: &'static str,
    vendor_name: &'static str,
    version: &'static str,
}

const PRODUCT: Product = Product {
    name: "Outgate",
    vendor_name: "Outgate",
    version: env!("CARGO_PKG_VERSION"),
};

/// An object that is only called something.
#[derive(Serialize)]
struct Uid<'a> {
    uid: Text<'a>,
}

/// An object that is only called something that people read.
#[derive(Serialize)]
struct Name<'a> {
    name: Text<'a>,
}

/// Who did it.
#[derive(Serialize)]
struct Actor<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<Uid<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<User<'a>>,
}

#[derive(Serialize)]
struct User<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Text<'a>>,
}

#[derive(Serialize)]
struct HttpResponse {
    code: u16,
}

fn text(text: &str, max: usize) -> Option<Text<'_>> {
    (!text.is_empty()).then(|| Text::new(text, max))
}
