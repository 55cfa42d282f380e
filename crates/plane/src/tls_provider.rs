//! The cryptography of both legs: the ciphers and key exchanges that rustls holds good, in the order that costs least here.

use rustls::crypto::{CryptoProvider, aws_lc_rs};

use crate::tls_records::with_own_records;

/// The provider for what guests and upstreams speak. With SHA-256 in hardware, `TLS_AES_128_GCM_SHA256` comes first
/// (RFC 8446 appendix B.4): SHA-384 is in software on most processors, and a quarter of a handshake.
pub fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    for suite in &mut provider.cipher_suites {
        *suite = with_own_records(*suite);
    }
    if hashes_in_hardware() {
        let suites = &mut provider.cipher_suites;
        // Stable: within TLS 1.3 and TLS 1.2 the others stay as they are.
        suites.sort_by_key(|suite| {
            let cheap = suite.suite() == rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
            !cheap
        });
    }
    provider
}

/// Whether this processor has instructions for SHA-256.
#[must_use]
pub fn hashes_in_hardware() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("sha");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("sha2");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

#[cfg(test)]
mod tests {
    use rustls::CipherSuite;

    use super::*;

    #[test]
    fn what_hardware_hashes_comes_first_and_nothing_is_lost() {
        let suites = |provider: &CryptoProvider| -> Vec<CipherSuite> {
            provider.cipher_suites.iter().map(|it| it.suite()).collect()
        };
        let (ours, mut theirs) = (suites(&provider()), suites(&aws_lc_rs::default_provider()));
        if hashes_in_hardware() {
            assert_eq!(ours[0], CipherSuite::TLS13_AES_128_GCM_SHA256);
            theirs.retain(|it| *it != ours[0]);
            theirs.insert(0, ours[0]);
        }
        assert_eq!(ours, theirs);
    }

    #[test]
    fn records_of_tls_13_are_protected_here() {
        let offered = provider().cipher_suites;
        let own: Vec<_> = offered.iter().filter_map(|suite| suite.tls13()).collect();
        assert_eq!(own.len(), 3);
        for suite in own {
            let is_aes = suite.common.suite != CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
            // Suites are told apart by this alone: ours are not for QUIC.
            assert_eq!(suite.quic.is_none(), is_aes, "{suite:?}");
        }
    }
}
