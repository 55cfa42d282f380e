//! Stage *inject*: decides whether, and which, upstream credential is attached. The plan binds a credential to the
//! one destination whose rule names it; the bytes stay with the plane's credential store.

use std::sync::Arc;

use crate::{
    denial::{Denial, DenyCode},
    destination::Transport,
    limit::Admission,
    policy::{CredentialName, Injection, Rule},
    session::Denylist,
};

/// Why a credential cannot be leased.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialFault {
    /// The source has no value, or lost it.
    #[error("the source has no value: {0}")]
    Missing(String),
    /// The value cannot be sent in the rule's form.
    #[error("the value does not fit the form")]
    Unfit,
}

/// The plane's credential store.
pub trait Credentials {
    /// One version of one credential, held while it is in use; wiped when the last holder drops it.
    type Lease: Send + Sync + 'static;

    /// The current version of a credential.
    ///
    /// # Errors
    /// [`CredentialFault`].
    fn lease(&self, name: &CredentialName) -> Result<Self::Lease, CredentialFault>;
}

/// Whether the audit trail takes records. Asked before a credential is drawn: what cannot be recorded is not done.
pub trait AuditGate {
    /// Whether the store is writable as far as is known.
    fn is_writable(&self) -> bool;
}

/// Proof of *inject*: what is attached to the request, for exactly the admitted destination.
#[derive(Debug)]
pub struct InjectionPlan<L> {
    admission: Admission,
    attachment: Option<Attachment<L>>,
}

/// A leased credential and where it goes.
#[derive(Debug)]
pub struct Attachment<L> {
    rule: Arc<Rule>,
    lease: L,
}

impl<L> Attachment<L> {
    /// The lease.
    #[must_use]
    pub const fn lease(&self) -> &L {
        &self.lease
    }

    /// Name and form.
    #[must_use]
    pub fn injection(&self) -> Option<&Injection> {
        self.rule.injection.as_ref()
    }
}

impl<L> InjectionPlan<L> {
    /// The admitted request.
    #[must_use]
    pub const fn admission(&self) -> &Admission {
        &self.admission
    }

    /// What is attached, if anything.
    #[must_use]
    pub const fn attachment(&self) -> Option<&Attachment<L>> {
        self.attachment.as_ref()
    }

    /// Whether the destination is one that credentials are injected into: then the guest's own are taken out,
    /// attached or not.
    #[must_use]
    pub fn is_injected_destination(&self) -> bool {
        self.admission.permit().allowed().rule().injection.is_some()
    }

    /// The credential that must not come back: the attached one, or the rule's, which an upstream may have kept from
    /// another request. `None` where there is none, or it has no value.
    pub fn lease_to_scrub(&self, credentials: &impl Credentials<Lease = L>) -> Option<L>
    where
        L: Clone,
    {
        if let Some(attachment) = &self.attachment {
            return Some(attachment.lease.clone());
        }
        let rule = self.admission.permit().allowed().rule();
        let injection = rule.injection.as_ref()?;
        credentials.lease(&injection.credential).ok()
    }
}

/// Whether the request itself presented a verified token. Only then a credential is drawn (S4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presentation {
    /// It did.
    ByRequest,
    /// It did not; the connection may be attributed all the same.
    NotByRequest,
}

/// Stage *inject*. An injected destination gets its credential only for a request that presented a token.
///
/// # Errors
/// [`DenyCode::TokenMissing`], [`DenyCode::CredentialOverPlaintext`], [`DenyCode::DenylistStale`],
/// [`DenyCode::AuditUnavailable`] or [`DenyCode::CredentialUnavailable`].
pub fn plan_injection<C: Credentials>(
    credentials: &C,
    audit: &impl AuditGate,
    denylist: &impl Denylist,
    admission: Admission,
    presentation: Presentation,
) -> Result<InjectionPlan<C::Lease>, Denial> {
    let rule = Arc::clone(admission.permit().allowed().rule());
    let Some(injection) = &rule.injection else {
        return Ok(InjectionPlan {
            admission,
            attachment: None,
        });
    };
    if presentation == Presentation::NotByRequest {
        return match rule.token {
            crate::policy::TokenDemand::Optional => Ok(InjectionPlan {
                admission,
                attachment: None,
            }),
            crate::policy::TokenDemand::Required => {
                Err(Denial::new(DenyCode::TokenMissing).by(&rule.id))
            }
        };
    }
    let destination = admission.permit().allowed().destination();
    if destination.transport() == Transport::Plain && !injection.over_plaintext {
        return Err(Denial::new(DenyCode::CredentialOverPlaintext).by(&rule.id));
    }
    // A session that was ended elsewhere must not go on drawing credentials because nobody could say so.
    if !denylist.is_fresh() {
        return Err(Denial::new(DenyCode::DenylistStale).by(&rule.id));
    }
    if !audit.is_writable() {
        return Err(Denial::new(DenyCode::AuditUnavailable).by(&rule.id));
    }
    let lease = credentials.lease(&injection.credential).map_err(|fault| {
        Denial::new(DenyCode::CredentialUnavailable)
            .because(fault.to_string())
            .by(&rule.id)
    })?;
    Ok(InjectionPlan {
        admission,
        attachment: Some(Attachment { rule, lease }),
    })
}
