//! The beginnings of an exchange's decrypted bodies, for the session view. Kept only where the owner said so, in
//! buffers that are wiped, and never longer than was said. What is kept of the guest's is what it sent, which has no
//! credential yet; what is kept of the upstream's is what the guest gets, after scrubbing. Session tokens are taken out.

use std::sync::{Mutex, PoisonError};

use outgate_control::sessions::{Bodies, BodyStart};
use outgate_journey::{outgoing::reveals_token, session::TokenVerifier, session::UnixSeconds};
use zeroize::Zeroizing;

/// What every JWT begins with.
const JWT_BEGINS: &[u8] = b"eyJ";
/// The shortest piece of one that is worth hiding.
const SHORTEST_PIECE: usize = 20;

/// What is kept of one exchange.
#[derive(Debug)]
pub(crate) struct BodyView {
    most: usize,
    bodies: Mutex<Bodies>,
}

impl BodyView {
    /// Keeps at most so many bytes of each body.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            bodies: Mutex::default(),
        }
    }

    pub(crate) fn keep_out(&self, data: &[u8]) {
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        keep(&mut bodies.request, data, self.most);
    }

    pub(crate) fn keep_in(&self, data: &[u8]) {
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        keep(&mut bodies.response, data, self.most);
    }

    /// What was kept, without session tokens; `None` if there was nothing.
    pub(crate) fn take(&self, tokens: &impl TokenVerifier, now: UnixSeconds) -> Option<Bodies> {
        let mut held = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bodies = std::mem::take(&mut *held);
        drop(held);
        if bodies.request.bytes.is_empty() && bodies.response.bytes.is_empty() {
            return None;
        }
        for body in [&mut bodies.request, &mut bodies.response] {
            hide_tokens(body, tokens, now);
            // In a buffer of its own size; the other one is wiped.
            body.bytes = Zeroizing::new(body.bytes.as_slice().to_vec());
        }
        Some(bodies)
    }
}

/// A buffer that grew would leave unwiped copies behind: it is made once, of its full size.
fn keep(into: &mut BodyStart, data: &[u8], most: usize) {
    if data.is_empty() || into.is_cut {
        return;
    }
    if into.bytes.is_empty() {
        into.bytes = Zeroizing::new(Vec::with_capacity(most));
    }
    let room = most.saturating_sub(into.bytes.len());
    into.bytes
        .extend_from_slice(data.get(..room).unwrap_or(data));
    into.is_cut = data.len() > room;
}

/// A body with a whole token in it, however it is spelt, is not shown at all; of what else looks like a piece of one,
/// the piece is blanked. In this order: a token of which one piece was blanked is not found any more.
fn hide_tokens(body: &mut BodyStart, tokens: &impl TokenVerifier, now: UnixSeconds) {
    let text = Zeroizing::new(String::from_utf8_lossy(&body.bytes).into_owned());
    if reveals_token(&text, tokens, now) {
        *body = BodyStart {
            bytes: Zeroizing::new(b"[session token]".to_vec()),
            is_cut: true,
        };
    }
    let mut at = 0;
    while let Some(found) = position(body.bytes.get(at..).unwrap_or_default()) {
        let start = at + found;
        let run = body.bytes.get_mut(start..).unwrap_or_default();
        let length = run.iter().take_while(|byte| is_jwt_byte(**byte)).count();
        if length >= SHORTEST_PIECE
            && let Some(run) = run.get_mut(..length)
        {
            run.fill(b'*');
        }
        at = start + length;
    }
}

fn position(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(JWT_BEGINS.len())
        .position(|window| window == JWT_BEGINS)
}

/// Whether a byte may be of a token: one whose dots are percent-encoded, as well.
const fn is_jwt_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'%')
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use outgate_journey::session::{SessionId, Terms, TokenClaims, TokenFault, TokenOrigin};

    use super::*;

    const GOOD: &str = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJzXzEifQ.c2lnbmF0dXJl";

    /// Takes one text for a token.
    struct One;

    impl TokenVerifier for One {
        fn verify(&self, token: &str, _: UnixSeconds) -> Result<Arc<TokenClaims>, TokenFault> {
            if token != GOOD {
                return Err(TokenFault::Invalid("not it"));
            }
            Ok(Arc::new(TokenClaims {
                session: SessionId::parse("s_1").unwrap(),
                token_id: "t".into(),
                expires: UnixSeconds(u64::MAX),
                terms: Terms::default(),
                origin: TokenOrigin::Own,
            }))
        }
    }

    fn kept(most: usize, out: &[&[u8]], back: &[&[u8]]) -> Option<Bodies> {
        let view = BodyView::new(most);
        out.iter().for_each(|data| view.keep_out(data));
        back.iter().for_each(|data| view.keep_in(data));
        view.take(&One, UnixSeconds(0))
    }

    #[test]
    fn so_many_bytes_are_kept_and_no_more() {
        let bodies = kept(4, &[b"ab", b"", b"cd"], &[b"\0\xff", b"123", b"4"]).unwrap();
        assert_eq!(
            (&**bodies.request.bytes, bodies.request.is_cut),
            (&b"abcd"[..], false)
        );
        assert_eq!(
            (&**bodies.response.bytes, bodies.response.is_cut),
            (&b"\0\xff12"[..], true)
        );
        assert_eq!(bodies.request.bytes.capacity(), 4);
        let bodies = kept(100, &[b"ab"], &[]).unwrap();
        assert_eq!(
            (bodies.request.bytes.capacity(), bodies.request.is_cut),
            (2, false)
        );
        assert_eq!(kept(4, &[], &[b""]), None);
    }

    #[test]
    fn no_session_token_is_kept_however_it_is_spelt() {
        let text = |bodies: &Bodies| String::from_utf8_lossy(&bodies.response.bytes).into_owned();
        let (head, tail) = GOOD.split_at(30);
        let hidden = "[session token]";
        let (start, end) = (head.as_bytes(), tail.as_bytes());
        let split = kept(400, &[], &[b"a=", start, end, b"&\xff"]).unwrap();
        assert_eq!(text(&split), hidden);
        let other = GOOD.replace('c', "d");
        let unknown = kept(400, &[], &[b"a=", other.as_bytes(), b"&\xff eyJ"]).unwrap();
        let stars = "*".repeat(GOOD.len());
        assert_eq!(text(&unknown), format!("a={stars}&\u{fffd} eyJ"));
        let cut = kept(45, &[], &[b"k", GOOD.as_bytes()]).unwrap();
        assert_eq!(text(&cut), format!("k{}", "*".repeat(44)));
        let encoded = GOOD.replace('.', "%2e");
        let found = kept(400, &[], &[b"t=", encoded.as_bytes()]).unwrap();
        assert_eq!(text(&found), hidden);
        let encoded = GOOD.replacen('e', "%65", 1);
        let found = kept(400, &[], &[encoded.as_bytes()]).unwrap();
        assert_eq!(text(&found), hidden);
    }
}
