//! A CA whose key is another process's: its certificate, which guests trust, and what is asked of a leaf that the other
//! process sends. A leaf that guests would refuse, or whose key is not its own, is refused here, with the reason.

use std::{fs, ops::Range, path::Path, sync::Arc, time::Duration};

use outgate_journey::{name::HostName, session::UnixSeconds};
use outgate_state as state;
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::aws_lc_rs::{default_provider, sign::any_supported_type},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroize;

use crate::{
    bundle::{Bundle, publish},
    ca::{fingerprint, seconds},
    error::PkiError,
};

/// The certificate of a CA, and those that are trusted beside it.
#[derive(Debug)]
pub struct CaCertificate {
    pem: String,
    fingerprint: String,
    subject: String,
    not_after: UnixSeconds,
    verifier: Arc<WebPkiServerVerifier>,
}

/// A leaf that came from another process, ready to be served.
#[derive(Debug, Clone)]
pub struct ReceivedLeaf {
    /// Certificate, chain and key.
    pub certified: Arc<CertifiedKey>,
    /// The seconds in which it is good.
    pub good: Range<UnixSeconds>,
}

impl CaCertificate {
    /// Reads it from a PEM file. The file's first block is what it is known by; further ones are trusted beside it, as
    /// while one CA follows another, for as long as they are good.
    ///
    /// # Errors
    /// [`PkiError::State`], [`PkiError::Certificate`], [`PkiError::Expired`] of the first.
    pub fn load(path: &Path, now: UnixSeconds) -> Result<Self, PkiError> {
        let unusable = |why| PkiError::Certificate {
            path: path.to_owned(),
            why,
        };
        let text = fs::read(path).map_err(|source| state::StateError::Io {
            doing: "read",
            path: path.to_owned(),
            source,
        })?;
        let blocks = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| unusable("it holds a block that is no certificate"))?;
        Self::of(&blocks, now).map_err(|flaw| match flaw {
            Unfit::Because(why) => unusable(why),
            Unfit::Other(error) => error,
        })
    }

    fn of(blocks: &[CertificateDer<'static>], now: UnixSeconds) -> Result<Self, Unfit> {
        let first = blocks
            .first()
            .ok_or(Unfit::Because("it holds no PEM certificate"))?;
        let (subject, not_after) = read_ca(first)?;
        if not_after <= now {
            return Err(Unfit::Other(PkiError::Expired { not_after }));
        }
        let mut roots = RootCertStore::empty();
        let mut pem = String::new();
        for der in blocks {
            if read_ca(der)?.1 <= now {
                continue;
            }
            let added = roots.add(der.clone());
            added.map_err(|_| Unfit::Because("it does not parse"))?;
            // Encoded again, so that nothing else which stands in the file is handed out with it.
            pem += &state::certificate_to_pem(der);
        }
        let provider = Arc::new(default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|_| Unfit::Other(PkiError::Crypto))?;
        Ok(Self {
            pem,
            fingerprint: fingerprint(first),
            subject,
            not_after,
            verifier,
        })
    }

    /// Writes `ca.crt` and `bundle.pem` into a folder, where a CA of this process's own would have them; see
    /// [`crate::write_bundle`].
    ///
    /// # Errors
    /// [`PkiError::OwnKey`] where the folder holds a CA's key; [`PkiError::Roots`], [`PkiError::State`].
    pub fn publish(&self, dir: &Path, ssl_cert_file: Option<&Path>) -> Result<Bundle, PkiError> {
        publish(dir, &self.pem, ssl_cert_file, |key| PkiError::OwnKey {
            key,
        })
    }

    /// What a sandbox has to trust, in PEM: the certificate, and those beside it.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of its DER as `AA:BB:…`.
    #[must_use]
    pub fn fingerprint_sha256(&self) -> &str {
        &self.fingerprint
    }

    /// Its name.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The last second of its life.
    #[must_use]
    pub const fn not_after(&self) -> UnixSeconds {
        self.not_after
    }

    /// Takes a leaf over: a chain and its private key, both PEM. The caller wipes the texts.
    ///
    /// # Errors
    /// [`PkiError::Leaf`] unless this CA vouches for it, for this name, at this time, and the key is its own.
    pub fn receive(
        &self,
        chain_pem: &str,
        key_pem: &str,
        host: &HostName,
        now: UnixSeconds,
    ) -> Result<ReceivedLeaf, PkiError> {
        let refused = PkiError::Leaf;
        let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| refused("its chain is not PEM"))?;
        let (leaf, between) = chain
            .split_first()
            .ok_or(refused("it has no certificate"))?;
        let name = ServerName::try_from(host.as_str()).map_err(|_| refused("of its name"))?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(now.0));
        self.verifier
            .verify_server_cert(leaf, between, &name, &[], at)
            .map_err(|_| {
                refused("the CA that guests trust does not vouch for it, now and for the name")
            })?;
        let (_, parsed) =
            X509Certificate::from_der(leaf).map_err(|_| refused("it does not parse"))?;
        let validity = parsed.validity();
        let good =
            seconds(validity.not_before.timestamp())..seconds(validity.not_after.timestamp());
        let mut key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|_| refused("it has no private key"))?;
        let signer = any_supported_type(&key);
        key.zeroize();
        let signer = signer.map_err(|_| refused("its private key is of no kind that is known"))?;
        let certified = CertifiedKey::new(chain, signer);
        certified
            .keys_match()
            .map_err(|_| refused("its private key is another's"))?;
        Ok(ReceivedLeaf {
            certified: Arc::new(certified),
            good,
        })
    }
}

/// Why a block is not trusted.
enum Unfit {
    Because(&'static str),
    Other(PkiError),
}

/// The name of a CA and the last second of its life.
fn read_ca(der: &CertificateDer<'_>) -> Result<(String, UnixSeconds), Unfit> {
    let (_, parsed) =
        X509Certificate::from_der(der).map_err(|_| Unfit::Because("it does not parse"))?;
    if !parsed.is_ca() {
        return Err(Unfit::Because("its basic constraints do not say CA"));
    }
    let not_after = seconds(parsed.validity().not_after.timestamp());
    Ok((parsed.subject().to_string(), not_after))
}
