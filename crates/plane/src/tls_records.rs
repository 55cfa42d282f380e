//! How TLS 1.3 protects its records with AES-GCM (RFC 8446 section 5.2) on both legs: half of what a bulk transfer
//! costs. Everything else of a cipher suite, and every other suite, is the TLS library's own.
//!
//! There are two libraries for it, as neither is the faster one on every processor. Their records are the same.

use std::{marker::PhantomData, sync::LazyLock};

use aws_lc_rs::aead as aws_lc;
#[cfg(target_arch = "x86_64")]
use ring::aead as ring_lib;
use rustls::{
    CipherSuite, ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion,
    SupportedCipherSuite, Tls13CipherSuite,
    crypto::{
        CipherSuiteCommon,
        aws_lc_rs::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384},
        cipher::{
            AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter,
            MessageEncrypter, NONCE_LEN, Nonce, OutboundChunks, OutboundOpaqueMessage,
            OutboundPlainMessage, PrefixedPayload, Tls13AeadAlgorithm, UnsupportedOperationError,
            make_tls13_aad,
        },
    },
};

/// Length of the authentication tag, in bytes.
const TAG: usize = 16;
/// Longer copies are made by the C library with one instruction (`rep movsb`), which AMD's Zen 3 is slow at where source
/// and destination lie badly to each other, as behind a record's header they do: it took longer than the encryption.
const PIECE: usize = 2 * 1024;

/// The suite with its records protected here, where that is AES-GCM of TLS 1.3.
pub(crate) fn with_own_records(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    static AES_128: LazyLock<Option<Tls13CipherSuite>> =
        LazyLock::new(|| fastest(TLS13_AES_128_GCM_SHA256));
    static AES_256: LazyLock<Option<Tls13CipherSuite>> =
        LazyLock::new(|| fastest(TLS13_AES_256_GCM_SHA384));
    let own = match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => AES_128.as_ref(),
        CipherSuite::TLS13_AES_256_GCM_SHA384 => AES_256.as_ref(),
        _ => None,
    };
    own.map_or(suite, SupportedCipherSuite::Tls13)
}

/// By AVX-512 AWS-LC encrypts several blocks at a time; by AVX2 only ring does.
fn fastest(suite: SupportedCipherSuite) -> Option<Tls13CipherSuite> {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected;
        let several = is_x86_feature_detected!("vaes") && is_x86_feature_detected!("vpclmulqdq");
        if several && !is_x86_feature_detected!("avx512bw") {
            return by::<ring_lib::LessSafeKey>(suite);
        }
    }
    by::<aws_lc::LessSafeKey>(suite)
}

fn by<K: Aead>(suite: SupportedCipherSuite) -> Option<Tls13CipherSuite> {
    let SupportedCipherSuite::Tls13(suite) = suite else {
        return None;
    };
    let aead_alg: &'static dyn Tls13AeadAlgorithm = match suite.aead_alg.key_len() {
        16 => &AesGcm::<K, 16>(PhantomData),
        32 => &AesGcm::<K, 32>(PhantomData),
        _ => return None,
    };
    Some(Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: suite.common.suite,
            hash_provider: suite.common.hash_provider,
            confidentiality_limit: suite.common.confidentiality_limit,
        },
        hkdf_provider: suite.hkdf_provider,
        aead_alg,
        quic: None,
    })
}

/// AES-GCM of one library, with keys of so many bytes.
struct AesGcm<K, const KEY: usize>(PhantomData<fn() -> K>);

impl<K: Aead, const KEY: usize> Tls13AeadAlgorithm for AesGcm<K, KEY> {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Records::<K>::new(&key, iv))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(Records::<K>::new(&key, iv))
    }

    fn key_len(&self) -> usize {
        KEY
    }

    /// None leave the TLS library: nobody else protects records with them.
    fn extract_keys(
        &self,
        _: AeadKey,
        _: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError)
    }
}

/// A library's key.
trait Aead: Send + Sync + Sized + 'static {
    /// Whether it leaves nothing of itself in memory.
    const IS_WIPED: bool;

    /// `None`: AES-GCM has no keys of this length.
    fn with_key(key: &[u8]) -> Option<Self>;

    /// Encrypts in place; gives the tag. With a key, a nonce must come once.
    fn seal(&self, nonce: [u8; NONCE_LEN], data: [u8; 5], plain: &mut [u8]) -> Option<[u8; TAG]>;

    /// Decrypts in place; gives the length without the tag. `None`: it is not what was sealed.
    fn open(&self, nonce: [u8; NONCE_LEN], data: [u8; 5], sealed: &mut [u8]) -> Option<usize>;
}

/// The libraries have the same interface, in types of their own.
macro_rules! aead {
    ($library:ident, is_wiped: $is_wiped:literal) => {
        impl Aead for $library::LessSafeKey {
            const IS_WIPED: bool = $is_wiped;

            fn with_key(key: &[u8]) -> Option<Self> {
                let algorithm = match key.len() {
                    16 => &$library::AES_128_GCM,
                    32 => &$library::AES_256_GCM,
                    _ => return None,
                };
                let key = $library::UnboundKey::new(algorithm, key).ok()?;
                Some(Self::new(key))
            }

            fn seal(
                &self,
                nonce: [u8; NONCE_LEN],
                data: [u8; 5],
                plain: &mut [u8],
            ) -> Option<[u8; TAG]> {
                let nonce = $library::Nonce::assume_unique_for_key(nonce);
                let tag = self.seal_in_place_separate_tag(nonce, $library::Aad::from(data), plain);
                tag.ok()?.as_ref().try_into().ok()
            }

            fn open(
                &self,
                nonce: [u8; NONCE_LEN],
                data: [u8; 5],
                sealed: &mut [u8],
            ) -> Option<usize> {
                let nonce = $library::Nonce::assume_unique_for_key(nonce);
                let plain = self.open_in_place(nonce, $library::Aad::from(data), sealed);
                plain.ok().map(|plain| plain.len())
            }
        }
    };
}

aead!(aws_lc, is_wiped: true);
#[cfg(target_arch = "x86_64")]
aead!(ring_lib, is_wiped: false);

/// One direction of a connection.
struct Records<K: Aead> {
    /// `None` for a key of another length, which the TLS library does not give: nothing is sealed or opened.
    key: Option<K>,
    iv: Iv,
    /// The least sequence number that may be sealed: a nonce that comes twice gives the key away.
    next: u64,
}

impl<K: Aead> Drop for Records<K> {
    /// The key of the upstream's side is worth the credentials that went through it. A library's key holds all of its
    /// state itself, so that another one in its place overwrites it.
    fn drop(&mut self) {
        if !K::IS_WIPED {
            self.key = K::with_key(&[0; 32]);
            std::hint::black_box(&self.key);
        }
    }
}

impl<K: Aead> Records<K> {
    fn new(key: &AeadKey, iv: Iv) -> Self {
        Self {
            key: K::with_key(key.as_ref()),
            iv,
            next: 0,
        }
    }

    fn nonce(&self, sequence: u64) -> [u8; NONCE_LEN] {
        Nonce::new(&self.iv, sequence).0
    }
}

impl<K: Aead> MessageEncrypter for Records<K> {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        sequence: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        if sequence < self.next {
            return Err(Error::EncryptError);
        }
        self.next = sequence.checked_add(1).ok_or(Error::EncryptError)?;
        let length = self.encrypted_payload_len(message.payload.len());
        let mut record = PrefixedPayload::with_capacity(length);
        append(&mut record, &message.payload);
        record.extend_from_slice(&message.typ.to_array());
        let (nonce, data) = (self.nonce(sequence), make_tls13_aad(length));
        let key = self.key.as_ref().ok_or(Error::EncryptError)?;
        let tag = key.seal(nonce, data, record.as_mut());
        record.extend_from_slice(&tag.ok_or(Error::EncryptError)?);
        let (kind, version) = (ContentType::ApplicationData, ProtocolVersion::TLSv1_2);
        Ok(OutboundOpaqueMessage::new(kind, version, record))
    }

    fn encrypted_payload_len(&self, plain: usize) -> usize {
        // The record's real type comes after what it carries.
        plain + 1 + TAG
    }
}

impl<K: Aead> MessageDecrypter for Records<K> {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        sequence: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let (nonce, data) = (self.nonce(sequence), make_tls13_aad(message.payload.len()));
        let key = self.key.as_ref().ok_or(Error::DecryptError)?;
        let plain = key.open(nonce, data, &mut message.payload);
        message.payload.truncate(plain.ok_or(Error::DecryptError)?);
        message.into_tls13_unpadded_message()
    }
}

/// Appends everything, in pieces.
fn append(record: &mut PrefixedPayload, payload: &OutboundChunks<'_>) {
    let (chunks, mut skipped, mut left) = match payload {
        OutboundChunks::Single(chunk) => (std::slice::from_ref(chunk), 0, chunk.len()),
        OutboundChunks::Multiple { chunks, start, end } => (*chunks, *start, end - start),
    };
    for chunk in chunks {
        let (_, rest) = chunk.split_at(skipped.min(chunk.len()));
        let (part, _) = rest.split_at(left.min(rest.len()));
        skipped -= chunk.len() - rest.len();
        left -= part.len();
        for piece in part.chunks(PIECE) {
            record.extend_from_slice(piece);
        }
    }
}

#[cfg(test)]
mod tests;
