//! Decides how Java is told which roots to trust: a key store in the JKS format, which every Java since 1.2 reads, with
//! Java's own default password. Nothing in it is secret, so the password protects nothing: it only lets programs that
//! check the store's digest open it.
//!
//! The layout, all numbers big-endian (OpenJDK, `sun.security.provider.JavaKeyStore`): magic, version 2, the number of
//! entries; for each trusted certificate the tag 2, its alias, its time of creation in milliseconds, the type `X.509` and
//! the DER with its length; at the end SHA-1 over the password in UTF-16, `Mighty Aphrodite` and all that is before.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use rustls_pki_types::CertificateDer;

use crate::error::PkiError;

/// The password that Java's own truststore has.
const PASSWORD: &str = "changeit";
const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
const TRUSTED_CERTIFICATE: u32 = 2;
const WHITENER: &[u8] = b"Mighty Aphrodite";

/// A JKS truststore of these roots; its password is `changeit`. The same roots give the same bytes.
///
/// # Errors
/// [`PkiError::Encoding`] for more or longer certificates than the format can count.
pub fn java_truststore(roots: &[CertificateDer<'_>]) -> Result<Vec<u8>, PkiError> {
    let length: usize = roots.iter().map(|der| der.len() + 64).sum();
    let mut store = Vec::with_capacity(length + 64);
    put_u32(&mut store, MAGIC);
    put_u32(&mut store, VERSION);
    put_u32(&mut store, count(roots.len())?);
    for (at, der) in roots.iter().enumerate() {
        put_u32(&mut store, TRUSTED_CERTIFICATE);
        put_text(&mut store, &format!("outgate-{at}"))?;
        // No reader asks for the time of creation.
        store.extend_from_slice(&0_u64.to_be_bytes());
        put_text(&mut store, "X.509")?;
        put_u32(&mut store, count(der.len())?);
        store.extend_from_slice(der);
    }
    let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    for unit in PASSWORD.encode_utf16() {
        digest.update(&unit.to_be_bytes());
    }
    digest.update(WHITENER);
    digest.update(&store);
    store.extend_from_slice(digest.finish().as_ref());
    Ok(store)
}

fn count(number: usize) -> Result<u32, PkiError> {
    u32::try_from(number).map_err(|_| PkiError::Encoding)
}

fn put_u32(store: &mut Vec<u8>, number: u32) {
    store.extend_from_slice(&number.to_be_bytes());
}

/// Java's modified UTF-8, which for ASCII is ASCII, with its length in 16 bits.
fn put_text(store: &mut Vec<u8>, text: &str) -> Result<(), PkiError> {
    let length = u16::try_from(text.len()).map_err(|_| PkiError::Encoding)?;
    store.extend_from_slice(&length.to_be_bytes());
    store.extend_from_slice(text.as_bytes());
    Ok(())
}
