//! Decides how a credential is attached. Forms that would break the framing of a request, or that no server could
//! read back, are refused here rather than on the request path.

use http::{HeaderName, header};
use outgate_journey::policy::{CredentialName, Injection, InjectionForm};

use super::report::Report;
use crate::{file::FileInject, node::KeyPath, read::similar};

const PLACEHOLDER: &str = "{credential}";

pub(super) fn check_inject(
    inject: &FileInject,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Option<Injection> {
    check_known(&inject.credential, &path.key("credential"), report);
    let written = Form {
        header: inject.header.as_deref(),
        template: inject.template.as_deref(),
        basic: inject.basic.as_deref(),
        query: inject.query.as_deref(),
    };
    Some(Injection {
        credential: CredentialName::new(inject.credential.as_str()),
        form: check_form(&written, path, report)?,
        over_plaintext: inject.over_plaintext,
    })
}

/// The keys that say where a credential goes, as written.
pub(super) struct Form<'a> {
    pub(super) header: Option<&'a str>,
    pub(super) template: Option<&'a str>,
    pub(super) basic: Option<&'a str>,
    pub(super) query: Option<&'a str>,
}

pub(super) fn check_form(
    form: &Form<'_>,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Option<InjectionForm> {
    if form.template.is_some() && form.header.is_none() && !report.touched(path) {
        report.error(
            "template_without_header",
            &path.key("template"),
            "only a header has a template".to_owned(),
            "add `header: …`, or take the template out",
        );
    }
    match (form.header, form.basic, form.query) {
        (Some(name), None, None) => check_header(name, form.template, path, report),
        (None, Some(username), None) => check_basic(username, &path.key("basic"), report),
        (None, None, Some(parameter)) => check_query(parameter, &path.key("query"), report),
        (None, None, None) if report.touched(path) => None,
        _ => {
            report.error(
                "one_form",
                path,
                "a credential is attached in exactly one form".to_owned(),
                "write one of `header: x-api-key`, `basic: user` and `query: key`",
            );
            None
        }
    }
}

fn check_known(name: &str, path: &KeyPath, report: &mut Report<'_>) {
    let known: Vec<&str> = report.credentials().iter().map(String::as_str).collect();
    if known.contains(&name) {
        return;
    }
    let help = similar(name, &known).map_or_else(
        || "add it under `credentials`, or name one that is there".to_owned(),
        |meant| format!("did you mean `{meant}`?"),
    );
    report.error(
        "unknown_credential",
        path,
        "there is no credential of this name".to_owned(),
        &help,
    );
}

/// A header field that the gateway may set on, or read from, a request without touching its framing or routing.
pub(super) fn check_sendable_header(
    text: &str,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Option<HeaderName> {
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        report.error(
            "invalid_header",
            path,
            "not the name of a header field".to_owned(),
            "write a name such as `x-api-key`",
        );
        return None;
    };
    if belongs_to_connection(&name) {
        report.error(
            "reserved_header",
            path,
            format!("`{name}` belongs to the connection, not to the request"),
            "use the field that the API documents for its key, as in `authorization` or `x-api-key`",
        );
        return None;
    }
    Some(name)
}

/// Whether a field is about one connection: it is rewritten between the legs, and HTTP/2 has others in its place.
pub(super) fn belongs_to_connection(name: &HeaderName) -> bool {
    let reserved = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::CONNECTION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::EXPECT,
    ];
    let text = name.as_str();
    reserved.contains(name)
        || text.starts_with("proxy-")
        || matches!(text, "keep-alive" | "http2-settings")
}

fn check_header(
    name: &str,
    template: Option<&str>,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Option<InjectionForm> {
    let name = check_sendable_header(name, &path.key("header"), report);
    let is_authorization = name
        .as_ref()
        .is_none_or(|name| *name == header::AUTHORIZATION);
    let default = if is_authorization {
        "Bearer {credential}"
    } else {
        PLACEHOLDER
    };
    let parts = check_template(template.unwrap_or(default), &path.key("template"), report);
    let (prefix, suffix) = parts?;
    Some(InjectionForm::Header {
        name: name?,
        prefix,
        suffix,
    })
}

fn check_template(
    template: &str,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Option<(String, String)> {
    let parts = template
        .split_once(PLACEHOLDER)
        .filter(|(_, suffix)| !suffix.contains(PLACEHOLDER));
    let Some((prefix, suffix)) = parts else {
        report.error(
            "template_placeholder",
            path,
            format!("a template has `{PLACEHOLDER}` exactly once"),
            "write for example \"Bearer {credential}\"; the secret itself does not belong in this file",
        );
        return None;
    };
    let visible = |text: &str| text.bytes().all(|b| matches!(b, b'\t' | b' '..=b'~'));
    let trimmed = |c: char| c == ' ' || c == '\t';
    if !visible(prefix)
        || !visible(suffix)
        || prefix.starts_with(trimmed)
        || suffix.ends_with(trimmed)
    {
        report.error(
            "invalid_template",
            path,
            "no header field can have this value".to_owned(),
            "use visible ASCII characters, without spaces at either end",
        );
        return None;
    }
    Some((prefix.to_owned(), suffix.to_owned()))
}

fn check_basic(username: &str, path: &KeyPath, report: &mut Report<'_>) -> Option<InjectionForm> {
    if username.contains(':') || username.chars().any(char::is_control) {
        report.error(
            "invalid_username",
            path,
            "a Basic user name has no colon and no control characters".to_owned(),
            "write the user name only; the credential becomes the password",
        );
        return None;
    }
    Some(InjectionForm::Basic {
        username: username.to_owned(),
    })
}

fn check_query(parameter: &str, path: &KeyPath, report: &mut Report<'_>) -> Option<InjectionForm> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'$');
    if parameter.is_empty() || !parameter.bytes().all(plain) {
        report.error(
            "invalid_parameter",
            path,
            "not the name of a query parameter".to_owned(),
            "write its name only, as in `key`: letters, digits, `-`, `.`, `_`, `~` and `$`",
        );
        return None;
    }
    Some(InjectionForm::Query {
        parameter: parameter.to_owned(),
    })
}
