//! Ids that cannot be guessed: 130 bits from the system's random source, in an alphabet that survives shells, URLs,
//! logs and being read aloud (Crockford's base 32, lower case).

use outgate_journey::session::SessionId;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LENGTH: usize = 26;

/// A fresh session id: `s_` and 26 characters.
#[must_use]
pub fn new_session_id() -> SessionId {
    // The random source of aws-lc stops the process rather than fail, so one round is all there is; to ask again is
    // still better than an id that somebody could guess.
    loop {
        if let Some(id) = random_text("s_").and_then(|text| SessionId::parse(&text)) {
            return id;
        }
    }
}

/// The prefix and 26 random characters; `None` where the random source fails.
pub(crate) fn random_text(prefix: &str) -> Option<String> {
    let mut bytes = [0; LENGTH];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    let mut text = String::with_capacity(prefix.len() + LENGTH);
    text.push_str(prefix);
    for byte in bytes {
        // 256 is a multiple of 32: the remainder is as even as the byte.
        text.push(char::from(*ALPHABET.get(usize::from(byte % 32))?));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_readable_and_never_repeat() {
        let ids: HashSet<String> = (0..1000).map(|_| new_session_id().to_string()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 28 && id.starts_with("s_")));
    }

    #[test]
    fn every_character_is_used() {
        let seen: HashSet<char> = (0..200)
            .flat_map(|_| random_text("").unwrap().chars().collect::<Vec<_>>())
            .collect();
        assert_eq!(seen.len(), 32);
    }
}
