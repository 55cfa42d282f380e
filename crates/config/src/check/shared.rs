//! Decides about the part of a file that a control plane gives to the gateways that follow it: what is let out, for
//! which sessions. It is judged the same wherever it is from.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use http::HeaderName;
use outgate_journey::{
    address::DenySet,
    policy::{NamedPolicy, Policy, Posture, Rule, SessionLimits},
    session::PolicyName,
};

use super::{destination, policy::check_policies, report::Report, session::check_sessions};
use crate::{
    Config, OperatorOidc, Sessions,
    file::{Shared, nothing_shared},
};

/// The shared part, each entry on its own.
pub(crate) struct CheckedShared {
    pub(super) rules: Vec<Rule>,
    posture: Option<Posture>,
    policies: BTreeMap<PolicyName, NamedPolicy>,
    sessions: Sessions,
    token_headers: Vec<HeaderName>,
    limits: SessionLimits,
    document: Arc<str>,
}

pub(super) fn check_shared(
    shared: &Shared<'_>,
    operators: &[OperatorOidc],
    folder: &Path,
    report: &mut Report<'_>,
) -> CheckedShared {
    let rules = destination::check_destinations(shared, report);
    let policies = check_policies(shared.policies, report);
    let (sessions, token_headers, limits) =
        check_sessions(shared.sessions, operators, folder, report);
    CheckedShared {
        rules,
        posture: destination::default_posture(shared.posture),
        policies,
        sessions,
        token_headers,
        limits,
        document: shared.document().into(),
    }
}

impl CheckedShared {
    /// What a gateway has that did not hear from its control plane: nothing is let out.
    pub(super) fn nothing() -> Self {
        Self {
            rules: Vec::new(),
            posture: None,
            policies: BTreeMap::new(),
            sessions: Sessions::default(),
            token_headers: Vec::new(),
            limits: SessionLimits::default(),
            document: nothing_shared().into(),
        }
    }

    /// The configuration with this part in place of its own.
    pub(crate) fn into_config(self, config: Config, deny_set: DenySet) -> Config {
        let named: HashMap<_, _> = self.policies.clone().into_iter().collect();
        Config {
            policy: Policy::new(self.rules, deny_set, self.limits, self.token_headers)
                .with_named(named)
                .with_tripwire(self.sessions.tripwire),
            posture: self.posture,
            policies: self.policies,
            sessions: self.sessions,
            document: self.document,
            ..config
        }
    }
}
