//! A leaf as it is handed out.

use outgate_journey::{name::HostName, session::UnixSeconds};
use outgate_pki::PortableLeaf;

/// A leaf for one host, with its private key, which is wiped on drop.
#[derive(Debug)]
pub struct Leaf {
    host: HostName,
    pem: PortableLeaf,
    due: UnixSeconds,
}

impl Leaf {
    pub(crate) fn new(host: HostName, pem: PortableLeaf, now: UnixSeconds) -> Self {
        let life = pem.not_after().0.saturating_sub(now.0);
        // After two thirds of its life or up to a twelfth earlier, so that leaves of one hour are not renewed in one
        // second. The serial number is random, so its beginning is.
        let random = pem.serial().get(..4);
        let random = random.and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let early = life / 12 * random.unwrap_or(0) / 0xffff;
        let due = UnixSeconds(now.0.saturating_add((life / 3 * 2).saturating_sub(early)));
        Self { host, pem, due }
    }

    /// Whose name it proves.
    #[must_use]
    pub const fn host(&self) -> &HostName {
        &self.host
    }

    /// The certificate, as PEM.
    #[must_use]
    pub fn chain_pem(&self) -> &str {
        self.pem.chain_pem()
    }

    /// The private key, as PEM. A copy is the caller's to wipe.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        self.pem.key_pem()
    }

    /// Its serial number, 32 hexadecimal digits: no two leaves have the same.
    #[must_use]
    pub fn serial(&self) -> &str {
        self.pem.serial()
    }

    /// The last second of its life.
    #[must_use]
    pub const fn not_after(&self) -> UnixSeconds {
        self.pem.not_after()
    }

    /// From when on another one is minted in its place.
    #[must_use]
    pub const fn due(&self) -> UnixSeconds {
        self.due
    }

    /// Whether clients accept it at this moment.
    pub(crate) fn is_good(&self, now: UnixSeconds) -> bool {
        self.pem.not_before() <= now && now < self.pem.not_after()
    }
}
