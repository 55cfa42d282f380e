//! What a peer is called, and who of those with a certificate is let in.

use std::{collections::BTreeSet, sync::Arc};

use rustls::CommonState;
use rustls_pki_types::CertificateDer;
use x509_parser::{extensions::GeneralName, prelude::FromDer};

/// The longest name that a peer may have; longer than DNS allows, and enough for a SPIFFE id.
const NAME_BYTES: usize = 512;

/// What the peer's verified certificate calls it: its DNS names in lower case, then its URIs. A wildcard is nobody's
/// name, and neither are those that are reserved.
#[must_use]
pub fn peer_names(connection: &CommonState, reserved: &[&str]) -> Vec<Arc<str>> {
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    certificate.map_or_else(Vec::new, |certificate| names(certificate, reserved))
}

/// A name that somebody wrote, as [`peer_names`] gives it: names of the DNS have no case; those with a scheme do.
#[must_use]
pub fn canonical_name(name: String) -> String {
    match name.contains(':') {
        true => name,
        false => name.to_ascii_lowercase(),
    }
}

/// Who is let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed(Option<BTreeSet<String>>);

impl Allowed {
    /// Everybody whom the CA gave a certificate.
    #[must_use]
    pub fn everybody() -> Self {
        Self::default()
    }

    /// These alone.
    pub fn only(names: impl IntoIterator<Item = String>) -> Self {
        Self(Some(names.into_iter().map(canonical_name).collect()))
    }

    /// By which of a certificate's names its holder is known here, if it is let in at all.
    #[must_use]
    pub fn admit(&self, names: &[Arc<str>]) -> Option<Arc<str>> {
        let is_allowed = |name: &&Arc<str>| {
            let list = self.0.as_ref();
            list.is_none_or(|list| list.contains(name.as_ref()))
        };
        names.iter().find(is_allowed).cloned()
    }
}

fn names(certificate: &CertificateDer<'_>, reserved: &[&str]) -> Vec<Arc<str>> {
    let Ok((_, parsed)) = x509_parser::certificate::X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let Ok(Some(extension)) = parsed.subject_alternative_name() else {
        return Vec::new();
    };
    let all = &extension.value.general_names;
    let dns = all.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let uris = all.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    dns.chain(uris)
        .filter(|name| is_plain(name) && !reserved.contains(&name.as_str()))
        .map(Arc::from)
        .collect()
}

/// Fit to be compared, and to be written into a record.
fn is_plain(name: &str) -> bool {
    (1..=NAME_BYTES).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b'*')
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::pem::PemObject;

    use super::*;
    use crate::testing::Ca;

    fn called(certified: &[&str], reserved: &[&str]) -> Vec<String> {
        let identity = Ca::new().client(certified);
        let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
        let names = names(&certificate, reserved);
        names.iter().map(|name| (**name).to_owned()).collect()
    }

    #[test]
    fn a_holder_is_called_by_its_dns_names_then_its_uris() {
        let longest = format!("spiffe://{}", "x".repeat(NAME_BYTES - "spiffe://".len()));
        let longer = format!("{longest}x");
        for (certified, names) in [
            (&["a.test"][..], &["a.test"][..]),
            (
                &["spiffe://A/b", "GW-1", "b.test"],
                &["gw-1", "b.test", "spiffe://A/b"],
            ),
            (&["*.test", "a.test"], &["a.test"]),
            (&["spiffe://a/*", "spiffe://a/b c"], &[]),
            (&["127.0.0.1", "::1"], &[]),
            (&[""], &[]),
            (&[&longest], &[&longest]),
            (&[&longer], &[]),
            (&[], &[]),
        ] {
            assert_eq!(called(certified, &[]), names, "{certified:?}");
        }
        assert!(names(&CertificateDer::from(&b"\x30\x03?"[..]), &[]).is_empty());
    }

    #[test]
    fn nobody_is_called_by_a_reserved_name() {
        assert_eq!(called(&["local", "a.test"], &[]), ["local", "a.test"]);
        for names in [&["local", "a.test"], &["LOCAL", "a.test"]] {
            assert_eq!(called(names, &["local"]), ["a.test"], "{names:?}");
        }
        assert_eq!(called(&["local.test"], &["local"]), ["local.test"]);
    }

    #[test]
    fn the_first_name_on_the_list_counts() {
        let list = |names: &[&str]| Allowed::only(names.iter().map(|&name| name.to_owned()));
        for (allowed, names, known_as) in [
            (Allowed::everybody(), &["b", "a"][..], Some("b")),
            (Allowed::everybody(), &[], None),
            (list(&[]), &["a"], None),
            (list(&["a"]), &[], None),
            (list(&["a", "b"]), &["b", "a"], Some("b")),
            (list(&["a"]), &["b", "a"], Some("a")),
            (list(&["A.test"]), &["a.test"], Some("a.test")),
            (list(&["a"]), &["a.test"], None),
            (list(&["spiffe://A"]), &["spiffe://A"], Some("spiffe://A")),
            (list(&["spiffe://A"]), &["spiffe://a"], None),
        ] {
            let names: Vec<Arc<str>> = names.iter().map(|&name| name.into()).collect();
            let admitted = allowed.admit(&names);
            assert_eq!(admitted.as_deref(), known_as, "{allowed:?} {names:?}");
        }
    }
}
