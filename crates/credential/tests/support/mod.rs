//! Credentials with a given value, by way of a file as in production.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use bytes::Bytes;
use http::HeaderName;
use outgate_credential::{CredentialStore, CredentialVersion, ScrubStream};
use outgate_journey::{
    inject::Credentials,
    policy::{CredentialName, CredentialSource, InjectionForm},
};

pub(crate) fn name() -> CredentialName {
    CredentialName::new("api")
}

pub(crate) fn bearer() -> InjectionForm {
    header("authorization", "Bearer ")
}

pub(crate) fn header(name: &'static str, prefix: &str) -> InjectionForm {
    InjectionForm::Header {
        name: HeaderName::from_static(name),
        prefix: prefix.into(),
        suffix: String::new(),
    }
}

pub(crate) fn basic() -> InjectionForm {
    InjectionForm::Basic {
        username: "user".into(),
    }
}

pub(crate) fn query() -> InjectionForm {
    InjectionForm::Query {
        parameter: "key".into(),
    }
}

pub(crate) fn wanted(path: &Path) -> BTreeMap<CredentialName, CredentialSource> {
    BTreeMap::from([(name(), CredentialSource::File(path.to_owned()))])
}

/// The credential as a store leases it, used in one form.
pub(crate) fn credential(secret: &[u8], form: InjectionForm) -> Arc<CredentialVersion> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secret");
    fs::write(&path, secret).expect("a file");
    let (store, _) = CredentialStore::open(&wanted(&path), &[(name(), form)]);
    store.lease(&name()).expect("a lease")
}

/// Pushes a text in pieces of the given sizes, over and over.
pub(crate) fn scrub(stream: &mut ScrubStream, text: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    for size in sizes.iter().cycle() {
        let (chunk, after) = rest.split_at((*size).clamp(1, rest.len().max(1)).min(rest.len()));
        stream
            .push(Bytes::copy_from_slice(chunk))
            .for_each(|piece| out.extend_from_slice(&piece));
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    out.extend(stream.finish().unwrap_or_default());
    out
}

pub(crate) fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Spellings, written without the crate's own code.
pub(crate) fn spelled(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    use base64::{Engine, engine::general_purpose as b64};
    let percent = |keep: &str, upper: bool| -> Vec<u8> {
        let mut text = String::new();
        for byte in secret {
            match char::from(*byte) {
                kept if keep != "none" && (kept.is_ascii_alphanumeric() || keep.contains(kept)) => {
                    text.push(kept);
                }
                _ if upper => text += &format!("%{byte:02X}"),
                _ => text += &format!("%{byte:02x}"),
            }
        }
        text.into_bytes()
    };
    let hex = |upper: bool| -> Vec<u8> {
        secret
            .iter()
            .map(|byte| {
                if upper {
                    format!("{byte:02X}")
                } else {
                    format!("{byte:02x}")
                }
            })
            .collect::<String>()
            .into()
    };
    let text = String::from_utf8_lossy(secret);
    let replaced = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .fold(text.to_string(), |t, (a, b)| t.replace(a, b))
            .into_bytes()
    };
    let with = |prefix: &str| [prefix.as_bytes(), secret].concat();
    let mut all = vec![
        ("plain", secret.to_vec()),
        ("base64", b64::STANDARD.encode(secret).into()),
        ("base64 url", b64::URL_SAFE_NO_PAD.encode(secret).into()),
        (
            "base64 of the bearer value",
            b64::STANDARD.encode(with("Bearer ")).into(),
        ),
        ("percent upper", percent("-._~", true)),
        ("percent lower", percent("-._~", false)),
        ("encodeURIComponent", percent("-_.!~*'()", true)),
        ("percent all upper", percent("none", true)),
        ("percent all lower", percent("none", false)),
        ("hex lower", hex(false)),
        ("hex upper", hex(true)),
    ];
    // Only text can be escaped as JSON or HTML.
    if std::str::from_utf8(secret).is_ok_and(|text| !text.chars().any(char::is_control)) {
        all.extend([
            ("json", replaced(&[("\\", "\\\\"), ("\"", "\\\"")])),
            (
                "json slash",
                replaced(&[("\\", "\\\\"), ("\"", "\\\""), ("/", "\\/")]),
            ),
            (
                "json go",
                replaced(&[
                    ("\\", "\\\\"),
                    ("\"", "\\\""),
                    ("<", "\\u003c"),
                    (">", "\\u003e"),
                    ("&", "\\u0026"),
                ]),
            ),
            (
                "html",
                replaced(&[
                    ("&", "&amp;"),
                    ("<", "&lt;"),
                    (">", "&gt;"),
                    ("\"", "&quot;"),
                    ("'", "&#x27;"),
                ]),
            ),
        ]);
    }
    all
}
