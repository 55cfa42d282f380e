//! Private keys as PEM text (RFC 7468), without leaving copies in memory that nobody wipes.

use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

/// PKCS#8 DER as a `PRIVATE KEY` block with lines of 64 characters.
#[must_use]
pub fn private_key_to_pem(pkcs8: &[u8]) -> Zeroizing<String> {
    encode("PRIVATE KEY", pkcs8)
}

/// A certificate's DER as a `CERTIFICATE` block.
#[must_use]
pub fn certificate_to_pem(der: &[u8]) -> String {
    encode("CERTIFICATE", der).to_string()
}

fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    // Sized up front: a string that grows leaves its outgrown copies behind unwiped.
    let body_len = der.len().div_ceil(3) * 4;
    let mut body = Zeroizing::new(String::with_capacity(body_len));
    STANDARD.encode_string(der, &mut body);
    let mut text = Zeroizing::new(String::with_capacity(capacity(label, body_len)));
    for part in ["-----BEGIN ", label, "-----\n"] {
        text.push_str(part);
    }
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at_checked(64).unwrap_or((rest, ""));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    for part in ["-----END ", label, "-----\n"] {
        text.push_str(part);
    }
    text
}

const fn capacity(label: &str, body_len: usize) -> usize {
    body_len + body_len.div_ceil(64) + 2 * label.len() + 32
}

/// The DER in the first block whose label ends in `PRIVATE KEY`. `None` where there is none, or it is encrypted or
/// not base64.
#[must_use]
pub fn private_key_from_pem(pem: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let text = std::str::from_utf8(pem).ok()?;
    let mut body = Zeroizing::new(String::with_capacity(text.len()));
    let mut inside = false;
    for line in text.lines().map(str::trim_end) {
        match (inside, line.strip_prefix("-----")) {
            (false, Some(mark)) => {
                inside = mark.starts_with("BEGIN ")
                    && mark.ends_with("PRIVATE KEY-----")
                    && !mark.contains("ENCRYPTED");
            }
            (true, Some(_)) => return decode(&body),
            (true, None) => body.push_str(line),
            (false, None) => {}
        }
    }
    None
}

fn decode(body: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut der = Zeroizing::new(vec![0; body.len().div_ceil(4) * 3]);
    let len = STANDARD.decode_slice(body, &mut der).ok()?;
    der.truncate(len);
    (len > 0).then_some(der)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_any_length_comes_back() {
        for len in [1, 47, 48, 49, 83, 96, 138, 500] {
            let der: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let pem = private_key_to_pem(&der);
            assert!(pem.lines().all(|line| line.len() <= 64));
            assert_eq!(*private_key_from_pem(pem.as_bytes()).unwrap(), der);
        }
    }

    #[test]
    fn the_text_is_not_copied_by_growth() {
        for len in [1, 48, 83, 138, 500] {
            let body_len = usize::div_ceil(len, 3) * 4;
            let pem = private_key_to_pem(&vec![7; len]);
            assert!(pem.len() <= capacity("PRIVATE KEY", body_len));
        }
    }

    #[test]
    fn parameters_before_the_key_are_skipped() {
        let pem = "-----BEGIN EC PARAMETERS-----\nBggq\n-----END EC PARAMETERS-----\n\
                   -----BEGIN EC PRIVATE KEY-----\nAQID\n-----END EC PRIVATE KEY-----\n";
        assert_eq!(*private_key_from_pem(pem.as_bytes()).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn what_is_no_private_key_is_refused() {
        for pem in [
            "",
            "AQID",
            "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAQID\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "-----BEGIN PRIVATE KEY-----\nA!ID\n-----END PRIVATE KEY-----\n",
            "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
            "-----BEGIN PRIVATE KEY-----\nAQID\n",
        ] {
            assert!(private_key_from_pem(pem.as_bytes()).is_none(), "{pem}");
        }
    }
}
