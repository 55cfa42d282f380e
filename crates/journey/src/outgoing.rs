//! Decides which of the guest's header fields reach an upstream. The session token never does (I1), in whatever
//! field it stands; neither do the guest's own credentials on an injected destination, nor what is meant for the
//! next hop only (RFC 9110 section 7.6.1), nor fields that could say another request than the one judged.

use std::{borrow::Cow, sync::LazyLock};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE, EXPECT,
        HOST, IF_RANGE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE, TE, TRAILER,
        TRANSFER_ENCODING, UPGRADE,
    },
};
use memchr::memmem::Finder;

use crate::{
    authorize::OVERRIDE_HEADERS,
    policy::{Injection, InjectionForm, Policy, Rule},
    session::{CREDENTIAL_HEADERS, TokenFault, TokenVerifier, UnixSeconds, basic_pair},
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

static HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    PROXY_CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HTTP2_SETTINGS,
];

/// Takes out everything that is meant for one hop: the fixed fields and those that `Connection` names. `TE: trailers`
/// stays (gRPC needs it), and so do framing fields that `Connection` must not name.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let wants_trailers = headers.get_all(TE).iter().any(|value| {
        value
            .as_bytes()
            .split(|b| *b == b',')
            .any(|part| part.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    });
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|b| *b == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .filter(|name| *name != http::header::HOST && *name != http::header::CONTENT_LENGTH)
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    remove_where(headers, |name, _| HOP_BY_HOP.contains(name));
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// One pass over what is there, instead of a search for each name that could be.
fn remove_where(headers: &mut HeaderMap, is_out: impl Fn(&HeaderName, &HeaderValue) -> bool) {
    let out = headers.iter().filter(|(name, value)| is_out(name, value));
    let out: Vec<HeaderName> = out.map(|(name, _)| name.clone()).collect();
    for name in out {
        headers.remove(name);
    }
}

/// Takes out what must not leave the gateway with a request under this rule.
pub fn strip_for_upstream(
    headers: &mut HeaderMap,
    policy: &Policy,
    rule: &Rule,
    tokens: &impl TokenVerifier,
    now: UnixSeconds,
) {
    strip_hop_by_hop(headers);
    remove_where(headers, |name, value| {
        // Answered by the gateway itself: the body is on its way.
        *name == EXPECT
            || is_replaced(name, policy, rule)
            || is_twin(name, policy, rule)
            // A byte that is no text must not hide the text beside it.
            || field_reveals_token(&String::from_utf8_lossy(value.as_bytes()), tokens, now)
    });
}

/// Whether the guest's own field would stand beside what is attached, or say another request than the one judged.
fn is_replaced(name: &HeaderName, policy: &Policy, rule: &Rule) -> bool {
    let is_injected = |injection: &Injection| {
        let own = match &injection.form {
            InjectionForm::Header { name, .. } => Some(name),
            _ => None,
        };
        let mut credentials = CREDENTIAL_HEADERS.iter().chain(policy.token_headers());
        credentials.any(|known| known == name)
            || own == Some(name)
            // An echoed credential that comes back in small ranges would pass the scrubber piece by piece. An answer
            // in full is always a good answer to a range request (RFC 9110 section 14.2).
            || *name == RANGE
            || *name == IF_RANGE
    };
    rule.injection.as_ref().is_some_and(is_injected)
        || (!rule.requests.is_unrestricted() && OVERRIDE_HEADERS.contains(name))
}

/// The name that servers may take a field's for, if that is not its own. Many take `x_api_key` for `x-api-key`; those that
/// hand fields on as variables (RFC 3875, section 4.1.18) may take `x.api.key` and `x!api!key` for it, too.
#[must_use]
pub fn twin_of(name: &HeaderName) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let name = name.as_str();
    (!name.chars().all(is_plain)).then(|| name.replace(|c| !is_plain(c), "-"))
}

/// Whether servers may take the field for one that is judged or replaced.
fn is_twin(name: &HeaderName, policy: &Policy, rule: &Rule) -> bool {
    let Some(dashed) = twin_of(name) else {
        return false;
    };
    let injected = match &rule.injection {
        Some(Injection {
            form: InjectionForm::Header { name, .. },
            ..
        }) => Some(name),
        _ => None,
    };
    let requests = &rule.requests;
    let is_known = |known: &HeaderName| *known == *dashed;
    let mut credentials = CREDENTIAL_HEADERS.iter().chain(policy.token_headers());
    let mut judged = requests.allow.iter().chain(&requests.deny);
    (rule.injection.is_some() && credentials.any(is_known))
        || injected.is_some_and(is_known)
        || (!requests.is_unrestricted() && OVERRIDE_HEADERS.iter().any(is_known))
        || judged.any(|rule| rule.headers.iter().any(|(known, _)| is_known(known)))
}

/// Fields that have no business in a trailer section (RFC 9110 section 6.5.1): a server that merges trailers into the
/// head would take them for its own.
static NEVER_TRAILERS: [HeaderName; 8] = [
    HOST,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    CONTENT_ENCODING,
    CONTENT_RANGE,
    COOKIE,
    EXPECT,
    TRAILER,
];

/// Takes out of a trailer section what must not leave with a head, and what only a head may hold.
pub fn strip_trailers_for_upstream(
    trailers: &mut HeaderMap,
    policy: &Policy,
    rule: &Rule,
    tokens: &impl TokenVerifier,
    now: UnixSeconds,
) {
    strip_for_upstream(trailers, policy, rule, tokens, now);
    remove_where(trailers, |name, _| {
        *name == TE || NEVER_TRAILERS.contains(name)
    });
}

fn field_reveals_token(text: &str, tokens: &impl TokenVerifier, now: UnixSeconds) -> bool {
    // `Basic` hides it in base64, in the password or in the user name.
    reveals_token(text, tokens, now)
        || basic_pair(text).is_some_and(|pair| reveals_token(&pair, tokens, now))
}

/// Whether a good session token, of whichever session, or one that was good, stands anywhere in a text, as it is or
/// percent-encoded, even more than once. A text that is made to be costly to search counts as one that reveals.
#[must_use]
pub fn reveals_token(text: &str, tokens: &impl TokenVerifier, now: UnixSeconds) -> bool {
    let mut text = Cow::Borrowed(text);
    for _ in 0..=MAX_DECODINGS {
        if holds_token(&text, tokens, now) {
            return true;
        }
        if !text.contains('%') {
            return false;
        }
        let decoded: Vec<u8> = percent_decode(text.as_bytes()).collect();
        let decoded = String::from_utf8_lossy(&decoded).into_owned();
        if decoded == *text {
            return false;
        }
        text = Cow::Owned(decoded);
    }
    true
}

/// Whether a part of a text could be a token or a piece of one, good or not. For what is only written down: there a
/// false alarm costs nothing.
#[must_use]
pub fn resembles_token(text: &str) -> bool {
    jwt_starts(text).any(|start| {
        let run = text.get(start..).unwrap_or_default();
        run.chars().take_while(|c| is_jwt_character(*c)).count() >= SHORTEST_PIECE
    })
}

/// A piece of a token that is worth hiding, in characters.
const SHORTEST_PIECE: usize = 20;
/// How often a text is percent-decoded before it counts as made to hide something.
const MAX_DECODINGS: usize = 3;
/// How many beginnings of a token one text may have: real ones have none or one.
const MAX_STARTS: usize = 64;
/// The length of an Ed25519 signature in base64url.
const SIGNATURE: usize = 86;

fn holds_token(text: &str, tokens: &impl TokenVerifier, now: UnixSeconds) -> bool {
    // It has two dots after its beginning.
    let mut starts = 0;
    for start in jwt_starts(text) {
        let run = text.get(start..).unwrap_or_default();
        let end = run
            .find(|c: char| !is_jwt_character(c))
            .unwrap_or(run.len());
        let mut parts = run.get(..end).unwrap_or_default().splitn(4, '.');
        let (Some(header), Some(claims), Some(signature)) =
            (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        starts += 1;
        if starts > MAX_STARTS {
            return true;
        }
        // What follows the signature may be of its alphabet.
        let signature = signature.len().min(SIGNATURE);
        let length = header.len() + claims.len() + 2 + signature;
        let token = run.get(..length).unwrap_or_default();
        if matches!(
            tokens.verify(token, now),
            Ok(_) | Err(TokenFault::Expired(_))
        ) {
            return true;
        }
    }
    false
}

/// Where a JWT may begin: with the base64url form of `{"`. Asked of every text of every request.
fn jwt_starts(text: &str) -> impl Iterator<Item = usize> + '_ {
    static BEGINS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("eyJ"));
    BEGINS.find_iter(text.as_bytes())
}

const fn is_jwt_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn percent_decode(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (first, after) = rest.split_first()?;
        let pair = after
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|pair| std::str::from_utf8(pair).ok());
        if let Some(byte) = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            rest = after.get(2..).unwrap_or_default();
            return Some(byte);
        }
        rest = after;
        Some(*first)
    })
}

/// Takes out what must not reach the guest with an answer: what is meant for one hop, and `Alt-Svc`
/// (RFC 7838), which would invite the client to QUIC, past the gateway.
pub fn strip_for_guest(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.remove(http::header::ALT_SVC);
}
