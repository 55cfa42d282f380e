//! How a credential is put into a request head. What the guest had in the same place is replaced, never merged.
//! Refuses a secret that the form cannot carry unchanged, rather than sending a damaged one.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Uri, header::AUTHORIZATION, uri::PathAndQuery};
use outgate_journey::{inject::CredentialFault, policy::InjectionForm};
use zeroize::Zeroizing;

use crate::{
    spelling::{self, RFC3986},
    version::CredentialVersion,
};

impl CredentialVersion {
    /// Replaces what the guest presented in the form's place.
    ///
    /// A header value is marked sensitive (kept out of `Debug` and of HPACK's tables); it cannot be wiped. A `Uri`
    /// cannot even be marked: after a query form it must not be printed.
    ///
    /// # Errors
    /// [`CredentialFault::Unfit`]: the secret cannot be sent unchanged in this form. Nothing was changed then.
    pub fn attach(
        &self,
        form: &InjectionForm,
        headers: &mut HeaderMap,
        uri: &mut Uri,
    ) -> Result<(), CredentialFault> {
        let secret = self.secret().expose();
        match form {
            InjectionForm::Header {
                name,
                prefix,
                suffix,
            } => {
                headers.insert(name.clone(), header_value(secret, prefix, suffix)?);
            }
            InjectionForm::Basic { username } => {
                headers.insert(AUTHORIZATION, basic_value(secret, username)?);
            }
            InjectionForm::Query { parameter } => *uri = with_parameter(uri, parameter, secret)?,
        }
        Ok(())
    }
}

/// Whether the form can carry the secret.
pub(crate) fn fits(form: &InjectionForm, secret: &[u8]) -> bool {
    match form {
        InjectionForm::Header { prefix, suffix, .. } => {
            header_value(secret, prefix, suffix).is_ok()
        }
        InjectionForm::Basic { username } => basic_value(secret, username).is_ok(),
        InjectionForm::Query { parameter } => {
            with_parameter(&Uri::from_static("/"), parameter, secret).is_ok()
        }
    }
}

/// Spaces at the ends would be stripped on the way (RFC 9110 section 5.5): the upstream would see another secret,
/// and could return one that the scrubber does not know.
fn header_value(secret: &[u8], prefix: &str, suffix: &str) -> Result<HeaderValue, CredentialFault> {
    let is_blank = |byte: Option<&u8>| matches!(byte, None | Some(b' ' | b'\t'));
    let mut text = Vec::with_capacity(prefix.len() + secret.len() + suffix.len());
    text.extend_from_slice(prefix.as_bytes());
    text.extend_from_slice(secret);
    text.extend_from_slice(suffix.as_bytes());
    if is_blank(text.first()) || is_blank(text.last()) {
        return Err(CredentialFault::Unfit);
    }
    sensitive(text)
}

/// RFC 7617 section 2: no control characters, and no colon in the user name.
fn basic_value(secret: &[u8], username: &str) -> Result<HeaderValue, CredentialFault> {
    let has_control = |text: &[u8]| text.iter().any(u8::is_ascii_control);
    if username.contains(':') || has_control(username.as_bytes()) || has_control(secret) {
        return Err(CredentialFault::Unfit);
    }
    let pair = spelling::basic_pair(username, secret);
    let encoded = spelling::base64_standard(&pair);
    let mut text = Vec::with_capacity("Basic ".len() + encoded.len());
    text.extend_from_slice(b"Basic ");
    text.extend_from_slice(&encoded);
    sensitive(text)
}

/// Takes the buffer over, so that the value is the only copy.
fn sensitive(text: Vec<u8>) -> Result<HeaderValue, CredentialFault> {
    let mut value =
        HeaderValue::from_maybe_shared(Bytes::from(text)).map_err(|_| CredentialFault::Unfit)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Puts `parameter=secret` where the parameter first stood, removes its other occurrences (also those whose name is
/// percent-encoded), or appends it. The path and the other parameters stay byte for byte.
fn with_parameter(uri: &Uri, parameter: &str, secret: &[u8]) -> Result<Uri, CredentialFault> {
    let encoded = spelling::percent(secret, RFC3986, spelling::Hex::Upper);
    let query = uri.query().unwrap_or("");
    let mut text =
        Vec::with_capacity(uri.path().len() + query.len() + parameter.len() + encoded.len() + 3);
    text.extend_from_slice(uri.path().as_bytes());
    let mut separator = b'?';
    let mut join = |text: &mut Vec<u8>, pair: &[&[u8]]| {
        text.push(separator);
        separator = b'&';
        pair.iter().for_each(|part| text.extend_from_slice(part));
    };
    let wanted: [&[u8]; 3] = [parameter.as_bytes(), b"=", &encoded];
    let mut placed = false;
    for pair in query
        .split('&')
        .filter(|_| uri.query().is_some_and(|query| !query.is_empty()))
    {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        if !names_same_parameter(name, parameter) {
            join(&mut text, &[pair.as_bytes()]);
        } else if !placed {
            placed = true;
            join(&mut text, &wanted);
        }
    }
    if !placed {
        join(&mut text, &wanted);
    }
    let mut parts = uri.clone().into_parts();
    let target =
        PathAndQuery::from_maybe_shared(Bytes::from(text)).map_err(|_| CredentialFault::Unfit)?;
    parts.path_and_query = Some(target);
    Uri::from_parts(parts).map_err(|_| CredentialFault::Unfit)
}

fn names_same_parameter(name: &str, parameter: &str) -> bool {
    name == parameter || decoded(name.as_bytes()) == decoded(parameter.as_bytes())
}

/// Percent-decoding as in a form: `+` is a space; a broken escape stands for itself.
fn decoded(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut plain = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text;
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'+', _) => plain.push(b' '),
            (b'%', [high, low, behind @ ..]) => {
                if let (Some(high), Some(low)) = (hex_digit(*high), hex_digit(*low)) {
                    plain.push(high << 4 | low);
                    rest = behind;
                } else {
                    plain.push(b'%');
                }
            }
            (byte, _) => plain.push(*byte),
        }
    }
    plain
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}
