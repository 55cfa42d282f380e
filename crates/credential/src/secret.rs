//! A secret's bytes. Refuses to be printed, copied or serialised; wiped on drop.

use std::fmt;

use zeroize::Zeroizing;

/// A plaintext secret, 1 byte to 64 KiB.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    pub(crate) const fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// A copy, which is wiped as this is.
    pub(crate) fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }

    /// The bytes. Whoever copies them owns a copy that nobody wipes.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_of_a_secret_holds_nothing_of_it() {
        let secret = Secret::new(Zeroizing::new(b"hunter2".to_vec()));
        assert_eq!(format!("{secret:?} {secret:#?}"), "[redacted] [redacted]");
    }
}
