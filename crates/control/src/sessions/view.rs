//! A session as an operator sees it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use outgate_journey::{
    limit_text::LimitsText,
    session::{SessionId, TokenOrigin},
};
use serde::{Deserialize, Serialize};

use super::{Sessions, live::Live};

/// Whether a session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// It goes on.
    Live,
    /// It is over.
    Ended,
    /// Its last token has run out.
    Expired,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndView {
    /// `ended`, `denied`, `idle`, `lifetime_over`, `tripwire`.
    pub cause: String,
    /// When, seconds since 1970.
    pub at: u64,
    /// The operator; `clock` if it idled or lived for too long.
    pub by: String,
}

/// A session as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// Its id.
    pub id: String,
    /// Whose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The operator's labels.
    pub labels: BTreeMap<String, String>,
    /// The container that it was created for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The policy that it is confined to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// What it was given, or what an operator set since.
    pub limits: LimitsText,
    /// When it was created, or first seen; seconds since 1970, as all times.
    pub created: u64,
    /// When its last token ends.
    pub expires: u64,
    /// When it last did anything; good to about a second.
    pub last_active: u64,
    /// When it will have lived for as long as a session may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at_latest: Option<u64>,
    /// Whether it goes on.
    pub state: SessionState,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<EndView>,
    /// The external issuer of its tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// What that issuer calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The operator; `issuer` if it was not created here.
    pub created_by: String,
}

impl Sessions {
    /// The sessions of a tenant, or all, the newest first. Those that are over are listed for an hour.
    #[must_use]
    pub fn list(&self, tenant: Option<&str>) -> Vec<SessionView> {
        let is_asked_for =
            |live: &&Arc<Live>| tenant.is_none_or(|tenant| live.tenant.as_deref() == Some(tenant));
        let lives = self.lives();
        let asked_for = lives.iter().filter(is_asked_for);
        let mut views: Vec<_> = asked_for.map(|live| self.view_of(live)).collect();
        views.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
        views
    }

    /// How many sessions are live. Goes through all, copying none.
    #[must_use]
    pub fn count_live(&self) -> usize {
        let now = self.time.unix();
        let is_live = |live: &Live| live.over.get().is_none() && live.expires() > now;
        self.known.iter().filter(|live| is_live(live)).count()
    }

    /// One session.
    #[must_use]
    pub fn view(&self, id: &SessionId) -> Option<SessionView> {
        self.live(id).map(|live| self.view_of(&live))
    }

    pub(super) fn view_of(&self, live: &Live) -> SessionView {
        let over = live.over.get();
        let state = match over {
            Some(_) => SessionState::Ended,
            None if live.expires() <= self.time.unix() => SessionState::Expired,
            None => SessionState::Live,
        };
        let limits = live.limits.load();
        let terms = live.terms.load();
        let (issuer, subject) = match &live.origin {
            TokenOrigin::Own => (None, None),
            TokenOrigin::External { issuer, subject } => {
                (Some(issuer.to_string()), Some(subject.to_string()))
            }
        };
        SessionView {
            id: live.id.to_string(),
            tenant: live.tenant.clone(),
            labels: live.labels.clone(),
            container: live.container.clone(),
            policy: terms.policy.as_ref().map(ToString::to_string),
            limits: LimitsText::from(limits.as_deref().unwrap_or(&terms.limits)),
            created: live.created.0,
            expires: live.expires().0,
            last_active: self.time.shown(live.pulse.last()),
            ends_at_latest: self.ends_at_latest(live),
            state,
            end: over.map(|over| EndView {
                cause: over.cause.as_str().to_owned(),
                at: over.at.0,
                by: over.by.clone(),
            }),
            issuer,
            subject,
            created_by: live.created_by.clone(),
        }
    }

    fn ends_at_latest(&self, live: &Live) -> Option<u64> {
        let lifetime = self.rules.load().lifetime?;
        let lived = self.time.now().saturating_sub(live.began);
        let left: Duration = lifetime.saturating_sub(lived);
        Some(self.time.unix().0.saturating_add(left.as_secs()))
    }
}
