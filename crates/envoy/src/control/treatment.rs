//! What becomes of a tunnel's first bytes. Envoy reads them only after the tunnel was opened, so the journey is asked
//! beforehand what it makes of TLS for the tunnel's own host, and of anything else; Envoy's listener has one filter chain
//! for each answer and none for what is refused.

use outgate_journey::{
    denial::Denial,
    gate::{ConnectionPass, TunnelOpening, TunnelTreatment, judge_opening, opening_is_judged},
};

/// What a tunnel may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// Anything.
    Opaque,
    /// What the journey lets TLS become, and whether requests in clear are served.
    Judged {
        /// `None`: TLS is refused.
        tls: Option<TunnelTreatment>,
        /// Whether requests in clear are served.
        plain: bool,
    },
}

impl Treatment {
    /// Every treatment, for whoever renders the listener.
    pub const ALL: &'static [Self] = &[
        Self::Opaque,
        Self::Judged {
            tls: Some(TunnelTreatment::Bump),
            plain: false,
        },
        Self::Judged {
            tls: Some(TunnelTreatment::Bump),
            plain: true,
        },
        Self::Judged {
            tls: Some(TunnelTreatment::PassThrough),
            plain: false,
        },
        Self::Judged {
            tls: Some(TunnelTreatment::PassThrough),
            plain: true,
        },
        Self::Judged {
            tls: None,
            plain: true,
        },
    ];

    /// What a tunnel with this pass may carry.
    ///
    /// # Errors
    /// Why TLS is refused, where requests in clear are too.
    pub fn of(pass: &ConnectionPass) -> Result<Self, Denial> {
        if !opening_is_judged(pass.allowed().rule()) {
            return Ok(Self::Opaque);
        }
        let own_host = pass.allowed().destination().host().as_str();
        let tls = judge_opening(
            pass,
            TunnelOpening::Tls {
                server_name: Some(own_host),
                encrypted_client_hello: false,
            },
        );
        let plain = judge_opening(pass, TunnelOpening::NotTls).is_ok();
        match tls {
            Err(denial) if !plain => Err(denial),
            tls => Ok(Self::Judged {
                tls: tls.ok(),
                plain,
            }),
        }
    }

    /// The word that Envoy's listener matches.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opaque => "opaque",
            Self::Judged { tls, plain } => match (tls, plain) {
                (Some(TunnelTreatment::Bump), false) => "bump",
                (Some(TunnelTreatment::Bump), true) => "bump+plain",
                (Some(TunnelTreatment::PassThrough), false) => "pass",
                (Some(TunnelTreatment::PassThrough), true) => "pass+plain",
                _ => "plain",
            },
        }
    }

    /// Whether Envoy carries the tunnel's bytes as they are, to an address that has to be known when it is opened.
    #[must_use]
    pub const fn carries_bytes(self) -> bool {
        matches!(
            self,
            Self::Opaque
                | Self::Judged {
                    tls: Some(TunnelTreatment::PassThrough),
                    ..
                }
        )
    }
}
