//! Stamps a leaf for a name. Whether the name may have one is decided before: the minter is asked only for
//! destinations that the policy bumps.
//!
//! All leaves share one key that lives and dies with the process: it never leaves memory, and whoever could take it
//! from there could take the CA's.

use std::{fmt, ops::Range, sync::Arc};

use outgate_journey::{name::HostName, session::UnixSeconds};
use quick_cache::sync::Cache;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType,
    SerialNumber,
};
use rustls::{
    crypto::aws_lc_rs::sign::any_ecdsa_type,
    sign::{CertifiedKey, SigningKey},
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::{
    ca::{BACKDATE, CertificateAuthority, date, random},
    error::PkiError,
    key::P256Key,
};

const LEAF_LIFE: u64 = 24 * 60 * 60;
/// A connection that begins with a leaf should not outlive it by much.
const RENEW_BEFORE_END: u64 = 60 * 60;

/// Mints and remembers leaves.
pub struct Minter {
    ca: Arc<CertificateAuthority>,
    /// `None` where the random source failed: every leaf is then refused.
    key: Option<LeafKey>,
    leaves: Cache<HostName, Leaf>,
}

/// The key of every leaf, as rcgen and as rustls want it.
struct LeafKey {
    public: P256Key,
    signer: Arc<dyn SigningKey>,
}

#[derive(Clone)]
struct Leaf {
    certified: Arc<CertifiedKey>,
    good: Range<UnixSeconds>,
}

impl Minter {
    /// A minter with a fresh leaf key that remembers up to `capacity` leaves.
    #[must_use]
    pub fn new(ca: Arc<CertificateAuthority>, capacity: usize) -> Self {
        Self {
            ca,
            key: LeafKey::generate(),
            leaves: Cache::new(capacity),
        }
    }

    /// The leaf for exactly this name: remembered until an hour before its end, else minted.
    ///
    /// # Errors
    /// [`PkiError::Expired`] once the CA is past its end; [`PkiError::Crypto`], [`PkiError::Encoding`].
    pub fn leaf(&self, host: &HostName, now: UnixSeconds) -> Result<Arc<CertifiedKey>, PkiError> {
        if let Some(leaf) = self
            .leaves
            .get(host)
            .filter(|leaf| leaf.good.contains(&now))
        {
            return Ok(leaf.certified);
        }
        let leaf = self.mint(host, now)?;
        let certified = Arc::clone(&leaf.certified);
        self.leaves.insert(host.clone(), leaf);
        Ok(certified)
    }

    /// Forgets every leaf.
    pub fn evict_all(&self) {
        self.leaves.clear();
    }

    fn mint(&self, host: &HostName, now: UnixSeconds) -> Result<Leaf, PkiError> {
        let key = self.key.as_ref().ok_or(PkiError::Crypto)?;
        if self.ca.not_after() <= now {
            return Err(PkiError::Expired {
                not_after: self.ca.not_after(),
            });
        }
        let from = UnixSeconds(now.0.saturating_sub(BACKDATE)).max(self.ca.not_before());
        let until = UnixSeconds(now.0.saturating_add(LEAF_LIFE)).min(self.ca.not_after());
        let certificate = parameters(host, from, until)?
            .signed_by(&key.public, self.ca.issuer())
            .map_err(|_| PkiError::Encoding)?;
        Ok(Leaf {
            certified: Arc::new(CertifiedKey::new(
                vec![certificate.into()],
                Arc::clone(&key.signer),
            )),
            good: from..UnixSeconds(until.0.saturating_sub(RENEW_BEFORE_END)),
        })
    }
}

impl fmt::Debug for Minter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Minter({:?}, {} leaves, [key redacted])",
            self.ca,
            self.leaves.len()
        )
    }
}

impl LeafKey {
    fn generate() -> Option<Self> {
        let public = P256Key::generate()?;
        let pkcs8 = public.to_pkcs8()?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_ref()));
        let signer = any_ecdsa_type(&der).ok()?;
        Some(Self { public, signer })
    }
}

fn parameters(
    host: &HostName,
    from: UnixSeconds,
    until: UnixSeconds,
) -> Result<CertificateParams, PkiError> {
    let name = host.as_str().try_into().map_err(|_| PkiError::Encoding)?;
    let mut params = CertificateParams::default();
    // No subject, so that a name of more than 64 characters fits; the alternative name is then critical (RFC 5280
    // section 4.1.2.6), which rcgen sees to.
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::DnsName(name)];
    params.serial_number = Some(SerialNumber::from_slice(&random::<16>()?));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date(from)?;
    params.not_after = date(until)?;
    Ok(params)
}
