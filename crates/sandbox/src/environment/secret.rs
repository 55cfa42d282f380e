//! Decides where a real secret stands in a value, and puts the token there.

use std::{ffi::OsString, fmt, os::unix::ffi::OsStringExt};

use zeroize::Zeroizing;

/// Shorter secrets are replaced only where they are the whole value: `a` is in every word.
const SHORTEST_INSIDE: usize = 8;

/// A secret's bytes: wiped on drop, never shown.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// For the command, which may know it: the token.
    pub(super) fn as_os_string(&self) -> OsString {
        OsString::from_vec(self.0.to_vec())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Puts one token in the place of many secrets.
pub(super) struct Replacer<'a> {
    /// The longest first: one secret may begin like another.
    secrets: Vec<&'a [u8]>,
    token: &'a [u8],
}

impl<'a> Replacer<'a> {
    pub(super) fn new(secrets: &'a [Secret], token: &'a Secret) -> Self {
        let mut secrets: Vec<&[u8]> = secrets.iter().map(|secret| secret.0.as_slice()).collect();
        secrets.retain(|secret| !secret.is_empty());
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self {
            secrets,
            token: &token.0,
        }
    }

    /// The value without secrets; `None` where it has none.
    pub(super) fn replace(&self, value: &[u8]) -> Option<Vec<u8>> {
        if self.secrets.contains(&value) {
            return Some(self.token.to_vec());
        }
        let mut clean = None;
        let (mut rest, mut kept) = (value, 0);
        while let Some((_, after)) = rest.split_first() {
            let found = self
                .secrets
                .iter()
                .find(|secret| secret.len() >= SHORTEST_INSIDE && rest.starts_with(secret));
            let Some(secret) = found else {
                rest = after;
                continue;
            };
            let at = value.len() - rest.len();
            let clean = clean.get_or_insert_with(|| Vec::with_capacity(value.len()));
            clean.extend_from_slice(value.get(kept..at).unwrap_or_default());
            clean.extend_from_slice(self.token);
            rest = rest.get(secret.len()..).unwrap_or_default();
            kept = value.len() - rest.len();
        }
        let mut clean = clean?;
        clean.extend_from_slice(value.get(kept..).unwrap_or_default());
        Some(clean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(secrets: &[&str], value: &[u8]) -> Option<Vec<u8>> {
        let secrets: Vec<Secret> = secrets.iter().map(|&it| Secret::new(it)).collect();
        Replacer::new(&secrets, &Secret::new("T")).replace(value)
    }

    #[test]
    fn secrets_are_found_wherever_they_stand() {
        for (secrets, value, expected) in [
            (&["secret-1"][..], &b"secret-1"[..], Some(&b"T"[..])),
            (
                &["secret-1"],
                b"https://x:secret-1@h/secret-1",
                Some(b"https://x:T@h/T"),
            ),
            (&["secret-1"], b"\xffsecret-1\x80", Some(b"\xffT\x80")),
            (&["secret-1"], b"secret-2", None),
            (&["secret-1"], b"", None),
            (
                &["secret-1", "secret-12"],
                b"secret-12 secret-1",
                Some(b"T T"),
            ),
            (&["secret-1"], b"ssecret-1", Some(b"sT")),
            (&["short"], b"short", Some(b"T")),
            (&["short"], b"shorter", None),
            (&[""], b"x", None),
        ] {
            assert_eq!(replaced(secrets, value).as_deref(), expected, "{value:?}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("abc")), "Secret(…)");
    }
}
