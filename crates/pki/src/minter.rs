//! Stamps a leaf for a name. Whether the name may have one is decided before: the minter is asked only for
//! destinations that the policy bumps.
//!
//! The leaves that this process serves itself share one key that lives and dies with it: it never leaves memory, and
//! whoever could take it from there could take the CA's. A leaf for another process has a key of its own, so that what
//! leaks there is worth one name for one day.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use outgate_journey::{name::HostName, session::UnixSeconds};
use quick_cache::sync::Cache;
use rcgen::{
    Certificate, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, KeyUsagePurpose,
    SanType, SerialNumber,
};
use rustls::{
    crypto::aws_lc_rs::sign::any_ecdsa_type,
    sign::{CertifiedKey, SigningKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::{
    ca::{BACKDATE, CertificateAuthority, date, random},
    error::PkiError,
    key::P256Key,
    portable::PortableLeaf,
};

const LEAF_LIFE: u64 = 24 * 60 * 60;
/// A connection that begins with a leaf should not outlive it by much.
const RENEW_BEFORE_END: u64 = 60 * 60;
/// Long enough that no two leaves share one by chance.
pub(crate) const SERIAL_BYTES: usize = 16;

/// Of the process, and not of a minter: another CA brings another minter, and the count goes on.
static MINTED: AtomicU64 = AtomicU64::new(0);

/// How many leaves this process set about to mint since it started, by whichever minter.
#[must_use]
pub fn leaves_minted() -> u64 {
    MINTED.load(Ordering::Relaxed)
}

/// Mints leaves, and remembers those that this process serves.
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

    /// Mints a leaf for exactly this name that another process serves, with a key of its own. Remembered by the caller,
    /// or nobody.
    ///
    /// # Errors
    /// As [`Self::leaf`].
    pub fn portable(&self, host: &HostName, now: UnixSeconds) -> Result<PortableLeaf, PkiError> {
        let key = P256Key::generate().ok_or(PkiError::Crypto)?;
        let pkcs8 = key.to_pkcs8().ok_or(PkiError::Crypto)?;
        let stamped = self.stamp(host, &key, now)?;
        Ok(PortableLeaf::new(&stamped, self.ca.chain(), pkcs8.as_ref()))
    }

    /// The CA that signs.
    #[must_use]
    pub const fn authority(&self) -> &Arc<CertificateAuthority> {
        &self.ca
    }

    /// Forgets every leaf.
    pub fn evict_all(&self) {
        self.leaves.clear();
    }

    fn mint(&self, host: &HostName, now: UnixSeconds) -> Result<Leaf, PkiError> {
        let key = self.key.as_ref().ok_or(PkiError::Crypto)?;
        let stamped = self.stamp(host, &key.public, now)?;
        let until = stamped.valid.end.0.saturating_sub(RENEW_BEFORE_END);
        Ok(Leaf {
            certified: Arc::new(CertifiedKey::new(
                self.with_chain(stamped.certificate.into()),
                Arc::clone(&key.signer),
            )),
            good: stamped.valid.start..UnixSeconds(until),
        })
    }

    fn with_chain(&self, leaf: CertificateDer<'static>) -> Vec<CertificateDer<'static>> {
        std::iter::once(leaf)
            .chain(self.ca.chain().iter().cloned())
            .collect()
    }

    fn stamp(&self, host: &HostName, key: &P256Key, now: UnixSeconds) -> Result<Stamped, PkiError> {
        MINTED.fetch_add(1, Ordering::Relaxed);
        if self.ca.not_after() <= now {
            return Err(PkiError::Expired {
                not_after: self.ca.not_after(),
            });
        }
        let from = UnixSeconds(now.0.saturating_sub(BACKDATE)).max(self.ca.not_before());
        let until = UnixSeconds(now.0.saturating_add(LEAF_LIFE)).min(self.ca.not_after());
        let serial = random::<SERIAL_BYTES>()?;
        let certificate = parameters(host, &serial, from, until)?
            .signed_by(key, self.ca.issuer())
            .map_err(|_| PkiError::Encoding)?;
        Ok(Stamped {
            certificate,
            serial,
            valid: from..until,
        })
    }
}

/// A signed certificate, and what it says.
pub(crate) struct Stamped {
    pub(crate) certificate: Certificate,
    pub(crate) serial: [u8; SERIAL_BYTES],
    pub(crate) valid: Range<UnixSeconds>,
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
    serial: &[u8],
    from: UnixSeconds,
    until: UnixSeconds,
) -> Result<CertificateParams, PkiError> {
    let name = host.as_str().try_into().map_err(|_| PkiError::Encoding)?;
    let mut params = CertificateParams::default();
    // No subject, so that a name of more than 64 characters fits; the alternative name is then critical (RFC 5280
    // section 4.1.2.6), which rcgen sees to.
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::DnsName(name)];
    params.serial_number = Some(SerialNumber::from_slice(serial));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date(from)?;
    params.not_after = date(until)?;
    Ok(params)
}
