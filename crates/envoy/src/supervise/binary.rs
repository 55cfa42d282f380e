//! Which Envoy, and whether it is one that can be used.

use std::{
    fmt,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::process::Command;

use super::{SuperviseError, flags::LOG_FORMAT, log};

/// The oldest that knows what the configuration needs.
pub const OLDEST: Version = Version {
    major: 1,
    minor: 40,
    patch: 0,
};
/// The newest that was tried, whatever its patch.
pub const NEWEST_KNOWN: Version = OLDEST;

const NAME: &str = "envoy";
/// Reading a configuration takes far less.
const PATIENCE: Duration = Duration::from_secs(30);

/// A version of Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 1.
    pub major: u32,
    /// A release, four a year.
    pub minor: u32,
    /// Its corrections.
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// An Envoy that can be used.
#[derive(Debug, Clone)]
pub struct EnvoyBinary {
    path: PathBuf,
    version: Version,
}

impl EnvoyBinary {
    /// Takes the named program, or the first `envoy` on the PATH, and asks for its version.
    ///
    /// # Errors
    /// [`SuperviseError`]: none found, not an Envoy, too old, or with privileges of its own.
    pub async fn find(given: Option<&Path>) -> Result<Self, SuperviseError> {
        let path = match given {
            Some(path) => std::path::absolute(path).map_err(|error| unusable(path, &error))?,
            None => on_path().ok_or(SuperviseError::NotOnPath)?,
        };
        check_privileges(&path)?;
        let output = run(&path, |command| command.arg("--version")).await?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = parse(&text)
            .ok_or_else(|| unusable(&path, &"it does not say as Envoy does which version it is"))?;
        if version < OLDEST {
            return Err(SuperviseError::TooOld {
                path,
                found: version,
            });
        }
        Ok(Self { path, version })
    }

    /// The program.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether nobody has tried this one: it may understand the configuration in another way.
    pub fn is_newer_than_known(&self) -> bool {
        let release = |it: Version| (it.major, it.minor);
        release(self.version) > release(NEWEST_KNOWN)
    }

    /// Lets Envoy read a bootstrap without serving it. It is left in the folder, for who wants to read what was refused.
    ///
    /// # Errors
    /// [`SuperviseError::ConfigRefused`] with what Envoy says; others where it could not be asked.
    pub async fn validate(&self, folder: &Path, bootstrap: &Value) -> Result<(), SuperviseError> {
        outgate_state::create_private_dir(folder)?;
        let file = folder.join("validated.json");
        outgate_state::write_private_atomic(&file, format!("{bootstrap:#}\n").as_bytes())?;
        let output = run(&self.path, |command| {
            command
                .args(["--mode", "validate", "--disable-hot-restart"])
                .args(["--log-level", "error", "--log-format", LOG_FORMAT, "-c"])
                .arg(&file)
        })
        .await?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<_> = said.lines().map(|line| log::read(line).message).collect();
        Err(SuperviseError::ConfigRefused {
            text: lines.join("; "),
            file,
        })
    }
}

fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(NAME))
        .find(|file| {
            std::fs::metadata(file)
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
        .and_then(|file| std::path::absolute(file).ok())
}

/// A set-user-ID program, or one with capabilities, does not get the signal that ends it with its supervisor.
fn check_privileges(path: &Path) -> Result<(), SuperviseError> {
    let meta = std::fs::metadata(path).map_err(|error| unusable(path, &error))?;
    let privilege = if meta.permissions().mode() & 0o6000 != 0 {
        Some("a set-user-ID or set-group-ID bit")
    } else if has_capabilities(path) {
        Some("file capabilities")
    } else {
        None
    };
    match privilege {
        Some(privilege) => Err(SuperviseError::Privileged {
            path: path.to_owned(),
            privilege,
        }),
        None => Ok(()),
    }
}

#[cfg(target_os = "linux")]
fn has_capabilities(path: &Path) -> bool {
    let mut none: [u8; 0] = [];
    rustix::fs::getxattr(path, "security.capability", &mut none).is_ok_and(|length| length > 0)
}

#[cfg(not(target_os = "linux"))]
fn has_capabilities(_path: &Path) -> bool {
    false
}

async fn run(
    path: &Path,
    arguments: impl FnOnce(&mut Command) -> &mut Command,
) -> Result<Output, SuperviseError> {
    let mut command = Command::new(path);
    let output = arguments(&mut command)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(PATIENCE, output).await {
        Ok(output) => output.map_err(|error| unusable(path, &error)),
        Err(_) => Err(unusable(path, &"it does not answer")),
    }
}

fn unusable(path: &Path, why: &dyn fmt::Display) -> SuperviseError {
    SuperviseError::Unusable {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

/// Reads `…version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`; a development build says `1.41.0-dev`.
fn parse(text: &str) -> Option<Version> {
    let (_, after) = text.split_once("version:")?;
    let number = after.trim().split('/').nth(1)?;
    let number = number.split('-').next()?;
    let mut parts = number.split('.').map(str::parse);
    let mut part = || parts.next()?.ok();
    Some(Version {
        major: part()?,
        minor: part()?,
        patch: part()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let of = |number: &str| {
            parse(&format!(
                "\n/usr/bin/envoy  version: 9e55/{number}/Clean/RELEASE/BoringSSL\n\n"
            ))
        };
        let shown = |number: &str| of(number).unwrap().to_string();
        assert_eq!(shown("1.40.0"), "1.40.0");
        assert_eq!(shown("1.41.2-dev"), "1.41.2");
        assert!(of("1.39.9").unwrap() < OLDEST);
        assert!(of("1.40.0").unwrap() >= OLDEST);
        assert_eq!(of("1.40"), None);
        assert_eq!(parse("GNU bash, version 5.2.15(1)-release"), None);
        let binary = |number| EnvoyBinary {
            path: PathBuf::new(),
            version: of(number).unwrap(),
        };
        assert!(!binary("1.40.9").is_newer_than_known());
        assert!(binary("1.41.0").is_newer_than_known());
    }
}
