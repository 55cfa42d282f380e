//! Reads the two files of a CA as one, and judges them.

use std::path::Path;

use outgate_journey::session::UnixSeconds;
use outgate_state as state;
use rcgen::PublicKeyData;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::{CaFiles, CaFlaw, CaRefused};
use crate::{
    ca::{CertificateAuthority, Chain, Flaw, assemble, seconds},
    key::P256Key,
};

/// How often the pair is read before it is judged as it was seen last.
const TRIES: usize = 5;
/// The part of a P-256 public key's DER that says what it is (RFC 5480): all of it but the point.
const KIND_LENGTH: usize = 26;

/// # Errors
/// [`CaRefused`].
pub(super) fn read(files: &CaFiles, now: UnixSeconds) -> Result<CertificateAuthority, CaRefused> {
    let of_certificate = |flaw| of_certificate(&files.certificate, flaw);
    let of_key = |flaw| of_key(&files.key, flaw);
    let (certificates, key) = read_pair(files)?;
    let blocks = blocks(&certificates).map_err(of_certificate)?;
    let key = state::private_key_from_pem(&key)
        .and_then(|der| P256Key::from_der(&der))
        .ok_or_else(|| of_key(CaFlaw::NotAKey))?;
    judge_signer(&blocks.0, &key, now).map_err(|flaw| match flaw {
        CaFlaw::OtherKey => of_key(flaw),
        flaw => of_certificate(flaw),
    })?;
    let chain = judge_chain(&blocks, now).map_err(of_certificate)?;
    let authority = assemble(&blocks.0, key, now).map_err(|flaw| match flaw {
        Flaw::Unusable(_) => of_certificate(CaFlaw::Subject),
        Flaw::OtherKey => of_key(CaFlaw::OtherKey),
        Flaw::Expired(at) => of_certificate(CaFlaw::Expired(1, at)),
    })?;
    if !authority.names_itself_as_issuer(now) {
        return Err(of_certificate(CaFlaw::Subject));
    }
    Ok(authority.with_chain(chain))
}

/// What guests have to trust, in PEM, by the certificate's file alone.
///
/// # Errors
/// [`CaRefused`].
pub(super) fn read_trusted(path: &Path, now: UnixSeconds) -> Result<String, CaRefused> {
    let text = read_certificates(path)?;
    blocks(&text)
        .and_then(|blocks| judge_chain(&blocks, now))
        .map(|chain| chain.trusted)
        .map_err(|flaw| of_certificate(path, flaw))
}

fn of_certificate(path: &Path, flaw: CaFlaw) -> CaRefused {
    CaRefused {
        key: "ca.certificate",
        path: path.to_owned(),
        flaw,
    }
}

fn of_key(path: &Path, flaw: CaFlaw) -> CaRefused {
    CaRefused {
        key: "ca.key",
        path: path.to_owned(),
        flaw,
    }
}

/// The first block, which signs, and those behind it.
type Blocks = (CertificateDer<'static>, Vec<CertificateDer<'static>>);

fn blocks(text: &[u8]) -> Result<Blocks, CaFlaw> {
    let mut blocks = CertificateDer::pem_slice_iter(text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| CaFlaw::NotCertificates)?
        .into_iter();
    let first = blocks.next().ok_or(CaFlaw::NotCertificates)?;
    Ok((first, blocks.collect()))
}

type Text = Zeroizing<Vec<u8>>;

/// The texts of one pair, if they are swapped as one: a certificate that is the same before and after its key was read.
fn read_pair(files: &CaFiles) -> Result<(Text, Text), CaRefused> {
    let key = || {
        state::read_mounted_secret(&files.key)
            .map_err(|error| of_key(&files.key, CaFlaw::File(error)))
    };
    let mut before = read_certificates(&files.certificate)?;
    let mut pair = (before.clone(), key()?);
    for _ in 1..TRIES {
        let after = read_certificates(&files.certificate)?;
        if after == before {
            break;
        }
        before = after;
        pair = (before.clone(), key()?);
    }
    Ok(pair)
}

fn read_certificates(path: &Path) -> Result<Text, CaRefused> {
    state::read_mounted_public(path).map_err(|error| of_certificate(path, CaFlaw::File(error)))
}

/// The certificate that signs.
fn judge_signer(der: &CertificateDer<'_>, key: &P256Key, now: UnixSeconds) -> Result<(), CaFlaw> {
    let parsed = judge_ca(der, 1, now)?;
    let (found, own) = (parsed.public_key().raw, key.subject_public_key_info());
    if found.get(..KIND_LENGTH) != own.get(..KIND_LENGTH) {
        return Err(CaFlaw::NotP256);
    }
    if found != own {
        return Err(CaFlaw::OtherKey);
    }
    match parsed.subject().iter().next() {
        Some(_) => Ok(()),
        None => Err(CaFlaw::Subject),
    }
}

/// What is behind it: each intermediate signed the certificate before it, and is sent in this order. Roots are not sent,
/// since who does not have them does not trust them; they are what is handed out.
fn judge_chain((first, further): &Blocks, now: UnixSeconds) -> Result<Chain, CaFlaw> {
    let signer = judge_ca(first, 1, now)?;
    let mut not_after = end_of(&signer);
    let mut roots = Vec::new();
    let mut sent = Vec::new();
    if is_root(&signer) {
        roots.push(first);
    } else {
        sent.push(first.clone());
    }
    let mut last = (first, signer);
    for (block, der) in (2..).zip(further) {
        let parsed = parse(der)?;
        if is_root(&parsed) {
            // One that has ended is trusted by nobody: it is no reason to stop.
            if end_of(&parsed) > now && parsed.is_ca() {
                roots.push(der);
            }
            continue;
        }
        let parsed = judge_ca(der, block, now)?;
        let below = &last.1;
        let is_issuer = below.issuer().as_raw() == parsed.subject().as_raw()
            && !is_root(below)
            && below.verify_signature(Some(parsed.public_key())).is_ok();
        if !is_issuer {
            return Err(CaFlaw::Chain(block));
        }
        not_after = not_after.min(end_of(&parsed));
        sent.push(der.clone());
        last = (der, parsed);
    }
    if roots.is_empty() {
        // The closest to a root that there is: most clients take any certificate that they are told to trust.
        roots.push(last.0);
    }
    Ok(Chain {
        sent,
        trusted: roots
            .iter()
            .map(|der| state::certificate_to_pem(der))
            .collect(),
        not_after,
    })
}

fn judge_ca<'d>(
    der: &'d CertificateDer<'_>,
    block: usize,
    now: UnixSeconds,
) -> Result<X509Certificate<'d>, CaFlaw> {
    let parsed = parse(der)?;
    if !parsed.is_ca() {
        return Err(CaFlaw::NotACa(block));
    }
    // RFC 5280 section 4.2.1.3 asks for the extension, and strict clients do.
    let usage = parsed.key_usage().ok().flatten();
    if !usage.is_some_and(|usage| usage.value.key_cert_sign()) {
        return Err(CaFlaw::MayNotSign(block));
    }
    let begin = seconds(parsed.validity().not_before.timestamp());
    if begin > now {
        return Err(CaFlaw::NotYet(block, begin));
    }
    let end = end_of(&parsed);
    if end <= now {
        return Err(CaFlaw::Expired(block, end));
    }
    Ok(parsed)
}

fn parse<'d>(der: &'d CertificateDer<'_>) -> Result<X509Certificate<'d>, CaFlaw> {
    match X509Certificate::from_der(der) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(CaFlaw::NotCertificates),
    }
}

fn is_root(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject().as_raw() == certificate.issuer().as_raw()
}

fn end_of(certificate: &X509Certificate<'_>) -> UnixSeconds {
    seconds(certificate.validity().not_after.timestamp())
}
