//! Which way a request came to Envoy. Rendered into each filter that asks, and read from each question.

use outgate_journey::record::Entry;
use outgate_plane::answer::Challenge;

/// Where in Envoy a call comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leg {
    /// A `CONNECT` to the explicit proxy.
    Connect,
    /// A captured TLS connection, which Envoy's listener makes a `CONNECT` of.
    Transparent,
    /// A request in absolute form to the explicit proxy.
    Forward,
    /// A request in clear on a captured connection.
    TransparentPlain,
    /// A request inside a bumped tunnel.
    Bumped,
    /// A request in clear inside a tunnel.
    TunnelledPlain,
}

impl Leg {
    pub(crate) const ALL: [Self; 6] = [
        Self::Connect,
        Self::Transparent,
        Self::Forward,
        Self::TransparentPlain,
        Self::Bumped,
        Self::TunnelledPlain,
    ];

    /// The word that the services are told.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Transparent => "transparent",
            Self::Forward => "forward",
            Self::TransparentPlain => "transparent-plain",
            Self::Bumped => "bumped",
            Self::TunnelledPlain => "tunnelled-plain",
        }
    }

    /// The leg of this word.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|leg| leg.as_str() == word)
    }

    /// Whether it opens a tunnel.
    pub(crate) const fn opens_tunnel(self) -> bool {
        matches!(self, Self::Connect | Self::Transparent)
    }

    /// Whether it is inside a tunnel that was opened before.
    pub(crate) const fn is_inner(self) -> bool {
        matches!(self, Self::Bumped | Self::TunnelledPlain)
    }

    /// What its requests speak.
    pub(crate) const fn scheme(self) -> &'static str {
        match self {
            Self::Bumped => "https",
            _ => "http",
        }
    }

    /// The port of an authority that names none.
    pub(crate) const fn default_port(self) -> Option<u16> {
        match self {
            Self::Connect | Self::Transparent => None,
            Self::Bumped => Some(443),
            Self::Forward | Self::TunnelledPlain | Self::TransparentPlain => Some(80),
        }
    }

    /// How records call it.
    pub(crate) const fn entry(self) -> Entry {
        match self {
            Self::Connect => Entry::Connect,
            Self::Transparent => Entry::Transparent,
            Self::Forward => Entry::AbsoluteForm,
            Self::TransparentPlain => Entry::TransparentPlain,
            Self::Bumped => Entry::Bumped,
            Self::TunnelledPlain => Entry::TunnelledPlain,
        }
    }

    /// Who asks for a token that is missing.
    pub(crate) const fn challenge(self) -> Challenge {
        match self {
            Self::Connect | Self::Forward => Challenge::Proxy,
            _ => Challenge::Destination,
        }
    }
}
