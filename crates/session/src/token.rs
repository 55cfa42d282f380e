//! The token as text. Whoever holds it can act as the session, so it is shown only to who asks for it by name.

use std::fmt;

use outgate_journey::session::UnixSeconds;
use zeroize::Zeroizing;

/// A session token in JWS compact form (RFC 7515 section 3.1). Wiped on drop.
pub struct SessionToken(Zeroizing<String>);

impl SessionToken {
    pub(crate) const fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// The text, for the one answer that hands it out.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken([redacted])")
    }
}

/// A token and what may be written down about it.
#[derive(Debug)]
pub struct Minted {
    /// The secret.
    pub token: SessionToken,
    /// `jti`.
    pub token_id: String,
    /// `exp`: the first second at which the token is no longer good.
    pub expires: UnixSeconds,
}
