//! The secrets of an exporter: values of header fields, keys that sign. Read before every attempt, so that a changed
//! file counts at once; never kept longer than the attempt, printed or logged.

use std::{
    fs::{File, Metadata},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::hmac;
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use outgate_journey::policy::CredentialSource;
use zeroize::Zeroizing;

use crate::{
    config::{ExportConfig, Target},
    fault::{ExportCode, Fault, Retry},
};

/// The longest secret, in bytes.
const LONGEST: usize = 64 * 1024;
/// Standard Webhooks 1.0: 192 bits.
const SHORTEST_KEY: usize = 24;
/// More keys than a change of keys needs.
const MOST_KEYS: usize = 4;
const KEY_PREFIX: &[u8] = b"whsec_";

/// Padding may be missing: people cut it off.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Where the secrets are.
#[derive(Debug)]
pub(crate) struct Secrets {
    headers: Vec<(HeaderName, CredentialSource)>,
    keys: Option<PathBuf>,
    /// No secret, but a file that may have to be mended.
    roots: Option<PathBuf>,
}

/// The secrets of one attempt.
pub(crate) struct Opened {
    /// Marked sensitive.
    pub(crate) headers: HeaderMap,
    pub(crate) keys: Vec<hmac::Key>,
}

impl Opened {
    /// Whether a text from the receiver repeats the value of a header field.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        let found = |secret: &[u8]| {
            !secret.is_empty() && text.as_bytes().windows(secret.len()).any(|at| at == secret)
        };
        // `Bearer X` is found by its X as well.
        self.headers.values().any(|value| {
            let value = value.as_bytes();
            found(value)
                || value
                    .split(u8::is_ascii_whitespace)
                    .next_back()
                    .is_some_and(found)
        })
    }
}

/// What shows that a file was changed.
pub(crate) type Stamp = Vec<Option<(u64, u64, i64, i64)>>;

impl Secrets {
    pub(crate) fn new(config: &ExportConfig) -> Self {
        Self {
            headers: config.headers.clone(),
            keys: match &config.target {
                Target::Otlp => None,
                Target::Webhook { secret_file } => Some(secret_file.clone()),
            },
            roots: config.ca.clone(),
        }
    }

    /// Reads all of them.
    ///
    /// # Errors
    /// One that names the source, never its content.
    pub(crate) fn open(&self) -> Result<Opened, Fault> {
        let mut headers = HeaderMap::new();
        for (name, source) in &self.headers {
            let text = match source {
                CredentialSource::File(path) => read_file(path)?,
                CredentialSource::Env(variable) => read_variable(variable)?,
                CredentialSource::Sds(_) => {
                    return Err(unusable("a header's value comes from a variable or a file"));
                }
            };
            let mut value = HeaderValue::from_bytes(text.trim_ascii())
                .ok()
                .filter(|value| !value.is_empty())
                .ok_or_else(|| {
                    unusable(&format!("the value for the header {name} cannot be sent"))
                })?;
            value.set_sensitive(true);
            headers.append(name.clone(), value);
        }
        let keys = match &self.keys {
            Some(path) => read_keys(path)?,
            None => Vec::new(),
        };
        Ok(Opened { headers, keys })
    }

    /// Changes with every change of a file, that of the roots included.
    pub(crate) fn stamp(&self) -> Stamp {
        let stamp = |path: &PathBuf| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
        };
        self.files().chain(&self.roots).map(stamp).collect()
    }

    /// Files that others can read, too.
    pub(crate) fn exposed(&self) -> Vec<&PathBuf> {
        let is_open = |found: Metadata| outgate_state::is_open_to_others(&found);
        self.files()
            .filter(|path| std::fs::metadata(path).is_ok_and(is_open))
            .collect()
    }

    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let headers = self.headers.iter().filter_map(|(_, source)| match source {
            CredentialSource::File(path) => Some(path),
            CredentialSource::Env(_) | CredentialSource::Sds(_) => None,
        });
        headers.chain(&self.keys)
    }
}

fn unusable(what: &str) -> Fault {
    Fault::new(ExportCode::Secret, Retry::Slowly, what)
}

fn read_variable(variable: &str) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let is_lawful = !variable.is_empty() && !variable.contains(['=', '\0']);
    is_lawful
        .then(|| std::env::var_os(variable))
        .flatten()
        .map(|value| Zeroizing::new(value.into_encoded_bytes()))
        .ok_or_else(|| unusable(&format!("the environment variable {variable} is not set")))
}

/// The buffer has room for the longest value from the start: one that grows would leave unwiped copies behind.
fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let fault = |why: &dyn std::fmt::Display| unusable(&format!("{}: {why}", path.display()));
    // Judged before opening as well: opening a pipe would wait for its writer.
    let is_file = std::fs::metadata(path)
        .map_err(|error| fault(&error))?
        .is_file();
    if !is_file {
        return Err(fault(&"not a regular file"));
    }
    let file = File::open(path).map_err(|error| fault(&error))?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST + 1));
    let limit = u64::try_from(LONGEST + 1).unwrap_or(u64::MAX);
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| fault(&error))?;
    if bytes.len() > LONGEST {
        return Err(fault(&"longer than 64 KiB"));
    }
    Ok(bytes)
}

fn read_keys(path: &Path) -> Result<Vec<hmac::Key>, Fault> {
    let fault = |why: &str| unusable(&format!("{}: {why}", path.display()));
    let bytes = read_file(path)?;
    let mut keys = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        if line.is_empty() {
            continue;
        }
        let decoded = match line.strip_prefix(KEY_PREFIX) {
            Some(text) => BASE64
                .decode(text)
                .map(Zeroizing::new)
                .map_err(|_| fault("what follows whsec_ is not base64"))?,
            None => Zeroizing::new(line.to_vec()),
        };
        if decoded.len() < SHORTEST_KEY {
            return Err(fault("a key has fewer than 24 bytes"));
        }
        keys.push(hmac::Key::new(hmac::HMAC_SHA256, &decoded));
    }
    match keys.len() {
        0 => Err(fault("holds no key")),
        1..=MOST_KEYS => Ok(keys),
        _ => Err(fault("holds more than 4 keys")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn secrets(target: Target, headers: Vec<(HeaderName, CredentialSource)>) -> Secrets {
        let mut config = ExportConfig::new("x", "https://siem.example.org/", target).unwrap();
        config.headers = headers;
        Secrets::new(&config)
    }

    #[test]
    fn keys_are_whsec_base64_or_text_of_at_least_24_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let whsec = format!("whsec_{}", BASE64.encode([7; 24]));
        let text = "t".repeat(24);
        for (content, wanted) in [
            (format!("{whsec}\n"), Some(1)),
            (whsec.trim_end_matches('=').to_owned(), Some(1)),
            (text.clone(), Some(1)),
            (format!("\n{whsec}\r\n{text}\n\n"), Some(2)),
            (String::new(), None),
            ("\n".to_owned(), None),
            ("t".repeat(23), None),
            (format!("whsec_{}", BASE64.encode([7; 23])), None),
            (format!("whsec_{}", "!".repeat(40)), None),
            (format!("{text}\nshort"), None),
            (format!("{text}\n").repeat(5), None),
            ("t".repeat(70_000), None),
        ] {
            fs::write(&path, &content).unwrap();
            let target = Target::Webhook {
                secret_file: path.clone(),
            };
            let opened = secrets(target, Vec::new()).open();
            match (opened, wanted) {
                (Ok(opened), Some(keys)) => assert_eq!(opened.keys.len(), keys, "{content}"),
                (Err(fault), None) => {
                    assert_eq!(
                        (fault.code, fault.retry),
                        (ExportCode::Secret, Retry::Slowly)
                    );
                    assert!(!fault.detail.contains("tttt"), "{}", fault.detail);
                }
                (Ok(_), None) => panic!("{content} was taken"),
                (Err(fault), Some(_)) => panic!("{content}: {}", fault.detail),
            }
        }
    }

    #[test]
    fn header_values_come_from_files_whole_and_sensitive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let name = HeaderName::from_static("authorization");
        let secrets = secrets(
            Target::Otlp,
            vec![(name.clone(), CredentialSource::File(path.clone()))],
        );
        assert!(secrets.open().is_err(), "there is no file");
        let before = secrets.stamp();
        fs::write(&path, "Bearer hunter2hunter2\r\n").unwrap();
        assert_ne!(secrets.stamp(), before);
        let opened = secrets.open().unwrap();
        let value = opened.headers.get(&name).unwrap();
        assert_eq!(value, "Bearer hunter2hunter2");
        assert!(value.is_sensitive());
        assert!(opened.is_in("bad token hunter2hunter2!") && !opened.is_in("bad token"));
        for bad in ["", " \n", "two\nlines", "nul\0"] {
            fs::write(&path, bad).unwrap();
            assert!(secrets.open().is_err(), "{bad:?}");
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(secrets.open().is_err(), "a folder");
    }
}
