//! The spellings in which an upstream may echo a secret.

use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZstdEncoder};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use tokio::io::AsyncWriteExt;

/// Every name that [`encode`] knows.
pub const ENCODINGS: [&str; 9] = [
    "plain",
    "base64",
    "base64url",
    "percent",
    "hex",
    "HEX",
    "gzip",
    "br",
    "zstd",
];

/// `bytes` in the spelling of that name, and the content coding to declare, if it is one.
///
/// # Panics
/// On an unknown name.
pub async fn encode(name: &str, bytes: &[u8]) -> (Vec<u8>, Option<&'static str>) {
    let text = |text: String| (text.into_bytes(), None);
    match name {
        "plain" => (bytes.to_vec(), None),
        "base64" => text(STANDARD.encode(bytes)),
        "base64url" => text(URL_SAFE_NO_PAD.encode(bytes)),
        "percent" => text(bytes.iter().map(|b| format!("%{b:02X}")).collect()),
        "hex" => text(bytes.iter().map(|b| format!("{b:02x}")).collect()),
        "HEX" => text(bytes.iter().map(|b| format!("{b:02X}")).collect()),
        "gzip" => {
            let mut encoder = GzipEncoder::new(Vec::new());
            encoder.write_all(bytes).await.expect("memory");
            encoder.shutdown().await.expect("memory");
            (encoder.into_inner(), Some("gzip"))
        }
        "br" => {
            let mut encoder = BrotliEncoder::new(Vec::new());
            encoder.write_all(bytes).await.expect("memory");
            encoder.shutdown().await.expect("memory");
            (encoder.into_inner(), Some("br"))
        }
        "zstd" => {
            let mut encoder = ZstdEncoder::new(Vec::new());
            encoder.write_all(bytes).await.expect("memory");
            encoder.shutdown().await.expect("memory");
            (encoder.into_inner(), Some("zstd"))
        }
        other => panic!("no encoding {other}"),
    }
}

/// Takes a content coding off.
///
/// # Panics
/// On an unknown coding or a broken body.
pub async fn decode(coding: Option<&str>, bytes: &[u8]) -> Vec<u8> {
    use async_compression::tokio::write::{BrotliDecoder, GzipDecoder, ZstdDecoder};
    match coding {
        None | Some("identity") => bytes.to_vec(),
        Some("gzip") => {
            let mut decoder = GzipDecoder::new(Vec::new());
            decoder.write_all(bytes).await.expect("gzip");
            decoder.shutdown().await.expect("gzip");
            decoder.into_inner()
        }
        Some("br") => {
            let mut decoder = BrotliDecoder::new(Vec::new());
            decoder.write_all(bytes).await.expect("br");
            decoder.shutdown().await.expect("br");
            decoder.into_inner()
        }
        Some("zstd") => {
            let mut decoder = ZstdDecoder::new(Vec::new());
            decoder.write_all(bytes).await.expect("zstd");
            decoder.shutdown().await.expect("zstd");
            decoder.into_inner()
        }
        Some(other) => panic!("no coding {other}"),
    }
}

/// Whether `haystack` holds `secret` in any spelling of [`ENCODINGS`] that needs no decompression, at any base64
/// alignment, whatever the case of hex digits.
#[must_use]
pub fn holds_secret(haystack: &[u8], secret: &str) -> bool {
    let contains = |needle: &[u8]| haystack.windows(needle.len().max(1)).any(|w| w == needle);
    let secret = secret.as_bytes();
    let hex: String = secret.iter().map(|b| format!("{b:02x}")).collect();
    let percent: String = secret.iter().map(|b| format!("%{b:02x}")).collect();
    let lower = haystack.to_ascii_lowercase();
    let contains_lower = |needle: &str| {
        lower
            .windows(needle.len().max(1))
            .any(|w| w == needle.as_bytes())
    };
    if contains(secret) || contains_lower(&hex) || contains_lower(&percent) {
        return true;
    }
    (0..3).any(|shift| {
        let mut padded = vec![b'A'; shift];
        padded.extend_from_slice(secret);
        // Only the characters that depend on nothing but the secret.
        let first = (shift * 8).div_ceil(6);
        let last = (padded.len() * 8) / 6;
        [STANDARD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)]
            .iter()
            .any(|text| contains(&text.as_bytes()[first..last]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_secret_is_found_in_every_spelling_and_not_in_its_absence() {
        let secret = "sk-live-0123456789abcdef";
        for encoding in ENCODINGS {
            let (bytes, coding) = encode(encoding, format!("<{secret}>").as_bytes()).await;
            let bytes = decode(coding, &bytes).await;
            assert!(holds_secret(&bytes, secret), "{encoding}");
            assert!(!holds_secret(&bytes, "sk-live-other-secret"), "{encoding}");
        }
    }
}
