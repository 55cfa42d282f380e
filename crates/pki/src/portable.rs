//! A leaf that leaves this process: as text, with its private key, for a data plane that ends TLS somewhere else. Its
//! key is wiped on drop and shown by nothing but [`PortableLeaf::key_pem`].

use std::{
    fmt::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use outgate_journey::{name::HostName, session::UnixSeconds};
use outgate_state as state;
use rcgen::PublicKeyData;
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::aws_lc_rs::default_provider,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::{ca::CertificateAuthority, key::P256Key, minter::Stamped};

/// A certificate for one host name and its private key, both as PEM.
pub struct PortableLeaf {
    chain: String,
    key: Zeroizing<String>,
    serial: String,
    not_before: UnixSeconds,
    not_after: UnixSeconds,
}

impl PortableLeaf {
    pub(crate) fn new(stamped: &Stamped, chain: &[CertificateDer<'static>], pkcs8: &[u8]) -> Self {
        let sent = std::iter::once(stamped.certificate.der()).chain(chain);
        Self {
            chain: sent.map(|der| state::certificate_to_pem(der)).collect(),
            key: state::private_key_to_pem(pkcs8),
            serial: hex(&stamped.serial),
            not_before: stamped.valid.start,
            not_after: stamped.valid.end,
        }
    }

    /// What a server presents, in PEM: the leaf, and the certificates between it and what clients trust, if there are any.
    #[must_use]
    pub fn chain_pem(&self) -> &str {
        &self.chain
    }

    /// The private key, one PEM block in PKCS#8 form. A copy is the caller's to wipe.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key
    }

    /// The random serial number, 32 hexadecimal digits.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// The first second of its life, which lies an hour before it was minted.
    #[must_use]
    pub const fn not_before(&self) -> UnixSeconds {
        self.not_before
    }

    /// The last second of its life.
    #[must_use]
    pub const fn not_after(&self) -> UnixSeconds {
        self.not_after
    }
}

impl fmt::Debug for PortableLeaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PortableLeaf({}, [key redacted])", self.serial)
    }
}

impl CertificateAuthority {
    /// The last second in which this leaf of this CA is good for exactly this name, with this key; `None` where the
    /// certificate or the key is another's, or the leaf is not good at `now`. For leaves that come back from a file.
    #[must_use]
    pub fn vouches_for(
        &self,
        chain_pem: &str,
        key_pem: &str,
        host: &HostName,
        now: UnixSeconds,
    ) -> Option<UnixSeconds> {
        let sent = CertificateDer::pem_slice_iter(chain_pem.as_bytes());
        let sent = sent.collect::<Result<Vec<_>, _>>().ok()?;
        let (leaf, chain) = sent.split_first()?;
        // With other intermediates, clients that trust the root alone may have no path to it.
        if chain != self.chain() {
            return None;
        }
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate().clone()).ok()?;
        let provider = Arc::new(default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let name = ServerName::try_from(host.as_str()).ok()?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(now.0));
        let verifier = verifier.build().ok()?;
        verifier
            .verify_server_cert(leaf, &[], &name, &[], at)
            .ok()?;
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        let key = P256Key::from_der(&state::private_key_from_pem(key_pem.as_bytes())?)?;
        let own = parsed.public_key().raw == key.subject_public_key_info();
        let until = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
        own.then_some(UnixSeconds(until))
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
