//! The two documents: the policy's text and the public keys. Sent in pieces, so that neither side ever holds more of a
//! message than a piece; taken only when whole.

use std::sync::Arc;

use outgate_fleet_proto as pb;
use serde_json::Value;

/// The longest policy that is sent and taken.
pub(crate) const POLICY_BYTES: usize = 8 * 1024 * 1024;
/// The longest key set.
pub(crate) const KEYS_BYTES: usize = 1024 * 1024;
/// How much of a document one message carries.
pub(crate) const PIECE_BYTES: usize = 48 * 1024;

/// The policy that the control plane has in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyDocument {
    /// Grows with every policy of one process's life.
    pub number: u64,
    /// The document; its form is the configuration's to know. At most 8 MiB.
    pub text: Arc<str>,
}

/// A document on its way: what is being sent, and how far.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    document: PolicyDocument,
    offset: usize,
}

impl Outgoing {
    pub(crate) const fn new(document: PolicyDocument) -> Self {
        Self {
            document,
            offset: 0,
        }
    }

    pub(crate) const fn number(&self) -> u64 {
        self.document.number
    }

    /// The next piece, and whether it was the last. An empty document is one empty piece.
    pub(crate) fn next(&mut self) -> (pb::Piece, bool) {
        let bytes = self.document.text.as_bytes();
        let end = bytes.len().min(self.offset.saturating_add(PIECE_BYTES));
        let piece = pb::Piece {
            number: self.document.number,
            total: as_u64(bytes.len()),
            offset: as_u64(self.offset),
            data: bytes.get(self.offset..end).unwrap_or_default().to_vec(),
        };
        self.offset = end;
        (piece, end == bytes.len())
    }
}

/// A document that is coming in.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    number: u64,
    total: u64,
    bytes: Vec<u8>,
}

impl Incoming {
    /// Takes a piece; gives the document when it is whole.
    ///
    /// # Errors
    /// Why the piece does not belong there. The stream is then of no use.
    pub(crate) fn take(
        &mut self,
        piece: &pb::Piece,
        limit: usize,
    ) -> Result<Option<PolicyDocument>, &'static str> {
        if piece.offset == 0 {
            *self = Self {
                number: piece.number,
                total: piece.total,
                bytes: Vec::new(),
            };
        }
        let after = as_u64(self.bytes.len() + piece.data.len());
        if (piece.number, piece.total) != (self.number, self.total)
            || piece.offset != as_u64(self.bytes.len())
            || after > self.total
        {
            return Err("a piece of a document is out of order");
        }
        if self.total > as_u64(limit) {
            return Err("a document is too long");
        }
        if piece.data.is_empty() && after < self.total {
            return Err("a piece of a document is empty");
        }
        self.bytes.extend_from_slice(&piece.data);
        if after < self.total {
            return Ok(None);
        }
        let text = String::from_utf8(std::mem::take(&mut self.bytes))
            .map_err(|_| "a document is not text")?;
        Ok(Some(PolicyDocument {
            number: self.number,
            text: text.into(),
        }))
    }
}

/// Whether this is a JWK set (RFC 7517) of public keys alone. A private or a symmetric key would make a token forger of
/// everybody who follows.
pub(crate) fn is_public_key_set(text: &str) -> bool {
    // RFC 7518 §6.2.2, §6.3.2, §6.4.1 and RFC 8037 §2.
    const PRIVATE: &[&str] = &["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];
    let Ok(Value::Object(set)) = serde_json::from_str(text) else {
        return false;
    };
    let Some(Value::Array(keys)) = set.get("keys") else {
        return false;
    };
    text.len() <= KEYS_BYTES
        && keys.iter().all(|key| {
            key.as_object().is_some_and(|key| {
                key.get("kty").is_some_and(|kind| kind != "oct")
                    && !PRIVATE.iter().any(|name| key.contains_key(*name))
            })
        })
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(len: usize) -> PolicyDocument {
        PolicyDocument {
            number: 7,
            text: "ä".repeat(len / 2).into(),
        }
    }

    #[test]
    fn a_document_of_any_length_arrives_as_it_was_sent() {
        for len in [
            0,
            2,
            PIECE_BYTES - 2,
            PIECE_BYTES,
            PIECE_BYTES + 2,
            5 * PIECE_BYTES,
        ] {
            let sent = document(len);
            let (mut out, mut incoming) = (Outgoing::new(sent.clone()), Incoming::default());
            loop {
                let (piece, last) = out.next();
                assert!(piece.data.len() <= PIECE_BYTES);
                let taken = incoming.take(&piece, POLICY_BYTES).unwrap();
                assert_eq!(taken.is_some(), last);
                if let Some(taken) = taken {
                    assert_eq!(taken, sent);
                    break;
                }
            }
        }
    }

    #[test]
    fn a_piece_that_is_left_out_repeated_or_of_another_document_is_refused() {
        let mut out = Outgoing::new(document(3 * PIECE_BYTES));
        let pieces: Vec<pb::Piece> = std::iter::from_fn(|| Some(out.next().0)).take(3).collect();
        let mut other = pieces[1].clone();
        other.number += 1;
        let mut longer = pieces[1].clone();
        longer.total += 1;
        for second in [&pieces[2], &other, &longer] {
            let mut incoming = Incoming::default();
            assert_eq!(incoming.take(&pieces[0], POLICY_BYTES), Ok(None));
            assert!(incoming.take(second, POLICY_BYTES).is_err());
        }
        let mut twice = Incoming::default();
        for piece in &pieces[..2] {
            assert_eq!(twice.take(piece, POLICY_BYTES), Ok(None));
        }
        assert!(twice.take(&pieces[1], POLICY_BYTES).is_err());
        assert!(Incoming::default().take(&pieces[0], 100).is_err());
    }

    #[test]
    fn only_a_set_of_public_keys_is_one() {
        let public = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA","kid":"a"}]}"#;
        for (text, good) in [
            (public, true),
            (r#"{"keys":[]}"#, true),
            (
                r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA","d":"AA"}]}"#,
                false,
            ),
            (
                r#"{"keys":[{"kty":"OKP","x":"AA"},{"kty":"RSA","n":"A","e":"A","dp":"A"}]}"#,
                false,
            ),
            (r#"{"keys":[{"kty":"oct","k":"AA"}]}"#, false),
            (r#"{"keys":[{"kty":"oct"}]}"#, false),
            (r#"{"keys":[{"x":"AA"}]}"#, false),
            (r#"{"keys":[7]}"#, false),
            (r#"{"keys":{}}"#, false),
            (r#"{}"#, false),
            ("[]", false),
            ("", false),
        ] {
            assert_eq!(is_public_key_set(text), good, "{text}");
        }
    }
}
