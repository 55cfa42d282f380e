//! The values that a credential had last. A rotation does not reach everybody at one moment: who attaches the credential
//! may still have the value before, and an upstream may still show it. So whoever looks for a value looks for those
//! before it as well.

use std::sync::Arc;

use crate::secret::Secret;

/// How many values before the present one are still looked for.
const BEFORE: usize = 2;

/// A value and those before it, none twice. Each is wiped when nothing holds it any more.
#[derive(Clone)]
pub(crate) struct Values {
    present: Arc<Secret>,
    /// The latest first.
    before: Vec<Arc<Secret>>,
}

impl Values {
    /// This value, after those.
    pub(crate) fn after(last: Option<&Self>, present: Secret) -> Self {
        let before = last
            .into_iter()
            .flat_map(Self::all)
            .filter(|value| value.expose() != present.expose())
            .take(BEFORE)
            .cloned()
            .collect();
        Self {
            present: Arc::new(present),
            before,
        }
    }

    pub(crate) fn present(&self) -> &Secret {
        &self.present
    }

    /// All of them, the latest first.
    pub(crate) fn exposed(&self) -> Vec<&[u8]> {
        self.all().map(|value| value.expose()).collect()
    }

    /// Whether the value is one of them.
    pub(crate) fn hold(&self, value: &Secret) -> bool {
        self.all().any(|own| own.expose() == value.expose())
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Secret>> {
        std::iter::once(&self.present).chain(&self.before)
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn the_last_three_different_values_are_held_and_no_more() {
        let mut values: Option<Values> = None;
        for (value, held) in [
            ("a", &["a"][..]),
            ("b", &["b", "a"]),
            ("b", &["b", "a"]),
            ("a", &["a", "b"]),
            ("c", &["c", "a", "b"]),
            ("d", &["d", "c", "a"]),
            ("c", &["c", "d", "a"]),
        ] {
            let secret = Secret::new(Zeroizing::new(value.as_bytes().to_vec()));
            let after = Values::after(values.as_ref(), secret);
            let held: Vec<&[u8]> = held.iter().map(|value| value.as_bytes()).collect();
            assert_eq!(after.exposed(), held);
            values = Some(after);
        }
    }

    #[test]
    fn a_value_is_gone_when_the_last_that_looks_for_it_is() {
        let secret = |value: &[u8]| Secret::new(Zeroizing::new(value.to_vec()));
        let first = Values::after(None, secret(b"a"));
        let held = Arc::downgrade(&first.present);
        let second = Values::after(Some(&first), secret(b"b"));
        let third = Values::after(Some(&second), secret(b"c"));
        let fourth = Values::after(Some(&third), secret(b"d"));
        drop((first, second));
        assert!(held.upgrade().is_some() && third.exposed().contains(&&b"a"[..]));
        drop(third);
        assert!(held.upgrade().is_none());
        assert_eq!(fourth.exposed(), [b"d", b"c", b"b"]);
    }
}
