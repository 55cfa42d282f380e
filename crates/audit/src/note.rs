//! Signed heads: who signs them, and how they read. A head is a checkpoint (<https://c2sp.org/tlog-checkpoint>) in a
//! signed note (<https://c2sp.org/signed-note>), so that other people's tools can check it, and witnesses can add
//! their signatures. The key's name is the origin, which names the log.

use std::{fmt, path::Path, str::FromStr};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use outgate_state::{
    create_private_dir, create_private_exclusive, private_key_from_pem, private_key_to_pem,
    read_private,
};

use crate::{
    chain::{Hash, LogId, digest},
    error::AuditError,
    replay::founded_log,
};

/// The file of the signing key, in the folder that [`AuditKey::load_or_create`] is given.
pub const KEY_FILE: &str = "audit.key";

const ED25519_TYPE: u8 = 1;
/// A note with sixteen cosignatures is far smaller.
pub(crate) const MAX_NOTE: u64 = 128 * 1024;

/// The Ed25519 key that signs the heads.
pub struct AuditKey(Ed25519KeyPair);

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditKey(…)")
    }
}

impl AuditKey {
    /// Reads the key of a folder, or makes one: `audit.key`, PKCS#8 in PEM, mode 0600. Of several who try at once, one
    /// makes it and all use it.
    ///
    /// # Errors
    /// [`AuditError::State`] if the file or folder cannot be used, or others could have read it; [`AuditError::Start`].
    pub fn load_or_create(folder: &Path) -> Result<Self, AuditError> {
        create_private_dir(folder)?;
        let path = folder.join(KEY_FILE);
        if !path.exists() {
            let made = Self::in_memory()?;
            let pkcs8 = made.0.to_pkcs8().map_err(|_| NO_KEY)?;
            create_private_exclusive(&path, private_key_to_pem(pkcs8.as_ref()).as_bytes())?;
        }
        Self::load(folder)
    }

    /// Reads the key of a folder.
    ///
    /// # Errors
    /// As [`load_or_create`](Self::load_or_create).
    pub fn load(folder: &Path) -> Result<Self, AuditError> {
        let path = folder.join(KEY_FILE);
        let pem = read_private(&path)?;
        private_key_from_pem(&pem)
            .and_then(|der| Ed25519KeyPair::from_pkcs8(&der).ok())
            .map(Self)
            .ok_or(AuditError::Key(path))
    }

    /// A key that is gone when the process ends: heads can be checked against what the trail says about it.
    ///
    /// # Errors
    /// [`AuditError::Start`].
    pub fn in_memory() -> Result<Self, AuditError> {
        Ed25519KeyPair::generate().map(Self).map_err(|_| NO_KEY)
    }

    /// What checks this key's signatures on the heads of a log.
    pub(crate) fn verifier(&self, log: LogId) -> Result<VerifierKey, AuditError> {
        let public = self
            .0
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| NO_KEY)?;
        Ok(VerifierKey::new(origin(log), public))
    }

    /// A checkpoint of a log, signed.
    pub(crate) fn sign(&self, verifier: &VerifierKey, checkpoint: &Checkpoint) -> String {
        let text = checkpoint.text();
        let mut signature = verifier.id.to_vec();
        signature.extend_from_slice(self.0.sign(text.as_bytes()).as_ref());
        format!(
            "{text}\n— {} {}\n",
            verifier.name,
            STANDARD.encode(signature)
        )
    }
}

/// What checks the signatures on the heads of the log in `dir`, as far as the key in `folder` made them. Creates
/// nothing.
///
/// # Errors
/// As [`AuditKey::load`]; [`AuditError::Damaged`] if there is no log.
pub fn verifier_key(dir: &Path, folder: &Path) -> Result<VerifierKey, AuditError> {
    let key = AuditKey::load(folder)?;
    key.verifier(founded_log(dir).map_err(|error| AuditError::Damaged(Box::new(error)))?)
}

const NO_KEY: AuditError = AuditError::Start("no key to sign its heads");

/// The line that names a log in its heads.
pub(crate) fn origin(log: LogId) -> String {
    format!("outgate-audit/{}", log.text())
}

/// The half of an [`AuditKey`] that checks, for one log. Its text is a verifier key of signed notes:
/// `outgate-audit/<log id>+<key id, 8 hex digits>+<base64 of 0x01 and the public key>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    public: [u8; 32],
}

impl VerifierKey {
    fn new(name: String, public: [u8; 32]) -> Self {
        let Hash(hash) = digest(&[name.as_bytes(), b"\n", &[ED25519_TYPE], &public]);
        let [a, b, c, d, ..] = hash;
        Self {
            name,
            id: [a, b, c, d],
            public,
        }
    }

    /// Reads a verifier key; `None` unless it is an Ed25519 one whose id is its own.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.split_once('+')?;
        let (id, key) = rest.split_once('+')?;
        let key = STANDARD.decode(key).ok()?;
        let (kind, public) = key.split_first()?;
        if name.is_empty() || name.contains(char::is_whitespace) || *kind != ED25519_TYPE {
            return None;
        }
        let key = Self::new(name.to_owned(), public.try_into().ok()?);
        (key.id_text() == id).then_some(key)
    }

    fn id_text(&self) -> String {
        format!("{:08x}", u32::from_be_bytes(self.id))
    }

    /// Whether heads of this origin are this key's to sign.
    pub(crate) fn signs(&self, origin: &str) -> bool {
        self.name == origin
    }

    /// Whether the note has a signature of this key, and that is right.
    pub(crate) fn has_signed(&self, note: &SignedNote<'_>) -> bool {
        let public = UnparsedPublicKey::new(&ED25519, self.public);
        let mut own = note
            .signatures()
            .filter(|(name, signature)| *name == self.name && signature.starts_with(&self.id));
        own.any(|(_, signature)| {
            let signature = signature.get(self.id.len()..).unwrap_or_default();
            public.verify(note.text.as_bytes(), signature).is_ok()
        })
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ED25519_TYPE];
        key.extend_from_slice(&self.public);
        write!(
            f,
            "{}+{}+{}",
            self.name,
            self.id_text(),
            STANDARD.encode(key)
        )
    }
}

/// The text is not a verifier key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 verifier key (name+key id+base64)")]
pub struct NotAVerifierKey;

impl FromStr for VerifierKey {
    type Err = NotAVerifierKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or(NotAVerifierKey)
    }
}

/// The tree at one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) origin: String,
    pub(crate) size: u64,
    pub(crate) root: Hash,
}

impl Checkpoint {
    fn text(&self) -> String {
        let root = STANDARD.encode(self.root.0);
        format!("{}\n{}\n{root}\n", self.origin, self.size)
    }

    /// Reads a note's text. There are no further lines in ours, and a second spelling would be an edit.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split('\n');
        let checkpoint = Self {
            origin: lines.next()?.to_owned(),
            size: lines.next()?.parse().ok()?,
            root: Hash(STANDARD.decode(lines.next()?).ok()?.try_into().ok()?),
        };
        (checkpoint.text() == text).then_some(checkpoint)
    }
}

/// A note, taken apart; nothing is checked yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignedNote<'a> {
    pub(crate) text: &'a str,
    signatures: &'a str,
}

impl<'a> SignedNote<'a> {
    pub(crate) fn parse(note: &'a str) -> Option<Self> {
        let split = note.rfind("\n\n")?;
        let (text, signatures) = (note.get(..=split)?, note.get(split + 2..)?);
        let plain = note.chars().all(|c| c == '\n' || !c.is_ascii_control());
        let signed =
            signatures.ends_with('\n') && signatures.lines().all(|line| line.starts_with("— "));
        (plain && signed).then_some(Self { text, signatures })
    }

    /// Key names, and key ids with signatures.
    fn signatures(&self) -> impl Iterator<Item = (&'a str, Vec<u8>)> + use<'a> {
        self.signatures.lines().filter_map(|line| {
            let (name, signature) = line.strip_prefix("— ")?.split_once(' ')?;
            Some((name, STANDARD.decode(signature).ok()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the signed-note specification's reference implementation.
    const NOTE_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn another_implementations_note_verifies() {
        let key: VerifierKey = NOTE_KEY.parse().unwrap();
        assert_eq!(key.to_string(), NOTE_KEY);
        assert!(key.has_signed(&SignedNote::parse(NOTE).unwrap()));
        let edited = NOTE.replace("answer", "ANSWER");
        assert!(!key.has_signed(&SignedNote::parse(&edited).unwrap()));
        let renamed = NOTE.replace("— Peter", "— Qeter");
        assert!(!key.has_signed(&SignedNote::parse(&renamed).unwrap()));
    }

    #[test]
    fn a_checkpoint_reads_back_and_only_its_own_key_has_signed_it() {
        let log = LogId([3; 16]);
        let (key, other) = (
            AuditKey::in_memory().unwrap(),
            AuditKey::in_memory().unwrap(),
        );
        let verifier = key.verifier(log).unwrap();
        let checkpoint = Checkpoint {
            origin: origin(log),
            size: 12,
            root: Hash([9; 32]),
        };
        let signed = key.sign(&verifier, &checkpoint);
        let note = SignedNote::parse(&signed).unwrap();
        assert_eq!(Checkpoint::parse(note.text), Some(checkpoint));
        assert!(verifier.has_signed(&note));
        assert!(!other.verifier(log).unwrap().has_signed(&note));
        assert!(!key.verifier(LogId([4; 16])).unwrap().has_signed(&note));
        // A witness adds its line behind ours.
        let cosigned = format!("{signed}— witness.example AAAAAAAAAAAA\n");
        assert!(verifier.has_signed(&SignedNote::parse(&cosigned).unwrap()));
    }

    #[test]
    fn what_is_no_verifier_key_or_note_is_refused() {
        for text in [
            "",
            "a+b",
            "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PeterNeumann+c74f20a3+AhpC",
        ] {
            assert_eq!(VerifierKey::parse(text), None, "{text}");
        }
        for note in [
            "",
            "\n\n",
            "text\n\n",
            "text\n\n— a b",
            "text\n\nx\n",
            "te\u{7}xt\n\n— a b\n",
        ] {
            assert!(
                SignedNote::parse(note).is_none_or(|note| note.signatures().count() == 0),
                "{note:?}"
            );
        }
        for text in [
            "o\n01\nAAAA\n",
            "o\n1\nAAAA\n",
            "o\n1\n",
            "o\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nmore\n",
        ] {
            assert_eq!(Checkpoint::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_key_is_made_once_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("keys-audit");
        let log = LogId([0; 16]);
        let first = AuditKey::load_or_create(&folder)
            .unwrap()
            .verifier(log)
            .unwrap();
        let second = AuditKey::load_or_create(&folder)
            .unwrap()
            .verifier(log)
            .unwrap();
        assert_eq!(first, second);
        let path = folder.join(KEY_FILE);
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(AuditKey::load_or_create(&folder).is_err());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "not a key").unwrap();
        assert!(matches!(
            AuditKey::load_or_create(&folder),
            Err(AuditError::Key(_))
        ));
    }
}
