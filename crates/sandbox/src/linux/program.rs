//! Finding the command as a shell does, and starting it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::group::Group;
use crate::Command;

/// Where a shell looks without a `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Starts the command with exactly its environment, `SIGPIPE` as a new program expects it, and this thread's signal
/// mask.
///
/// # Errors
/// `ENOENT`: there is no such command. Any other: there is, and it cannot be executed; `ELIBACC`: its interpreter is
/// missing.
pub(super) fn start(command: &Command, group: Group) -> io::Result<process::Child> {
    let program = locate(&command.program, &command.environment)?;
    let run = |program: &Path, name: &OsStr, script: Option<&Path>| {
        let mut run = process::Command::new(program);
        run.arg0(name).args(script).args(&command.args).env_clear();
        if group == Group::Own {
            run.process_group(0);
        }
        run.envs(
            command
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .spawn()
    };
    match run(&program, &command.program, None) {
        // A script without `#!` is the shell's.
        Err(error) if error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => {
            run(Path::new("/bin/sh"), OsStr::new("sh"), Some(&program))
        }
        Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {
            Err(Errno::LIBACC.into())
        }
        other => other,
    }
}

/// The file that `name` means: itself if it has a slash, else the first executable file of that name on the `PATH`.
fn locate(name: &OsStr, environment: &[(OsString, OsString)]) -> io::Result<PathBuf> {
    if name.is_empty() {
        return Err(Errno::NOENT.into());
    }
    if name.as_bytes().contains(&b'/') {
        return executable(Path::new(name)).map(|()| name.into());
    }
    let path = environment
        .iter()
        .rev()
        .find(|(name, _)| name == "PATH")
        .map(|(_, value)| value.as_os_str());
    let mut denied = None;
    for folder in path
        .unwrap_or(OsStr::new(DEFAULT_PATH))
        .as_bytes()
        .split(|byte| *byte == b':')
    {
        // An empty word is the working directory.
        let folder = if folder.is_empty() { b"." } else { folder };
        let file = Path::new(OsStr::from_bytes(folder)).join(name);
        match executable(&file) {
            Ok(()) => return Ok(file),
            Err(error) if error.raw_os_error() == Some(Errno::ACCESS.raw_os_error()) => {
                denied = Some(error)
            }
            _ => {}
        }
    }
    Err(denied.unwrap_or_else(|| Errno::NOENT.into()))
}

fn executable(file: &Path) -> io::Result<()> {
    let kind = match file.metadata() {
        Err(error) if error.raw_os_error() == Some(Errno::NOTDIR.raw_os_error()) => {
            return Err(Errno::NOENT.into());
        }
        other => other?,
    };
    if !kind.is_file() {
        return Err(Errno::ACCESS.into());
    }
    Ok(access(file, Access::EXEC_OK)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_executable_file_on_the_path_wins() {
        let folder = tempfile::tempdir().unwrap();
        let at = |place: &str| folder.path().join(place);
        for (place, mode) in [
            ("a/tool", 0o644),
            ("b/tool", 0o755),
            ("c/tool", 0o755),
            ("a/plain", 0o644),
        ] {
            std::fs::create_dir_all(at(place).parent().unwrap()).unwrap();
            std::fs::write(at(place), "").unwrap();
            std::fs::set_permissions(at(place), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        std::fs::create_dir_all(at("b/folder")).unwrap();
        let path = ["none", "a", "b", "c"]
            .map(|name| at(name).display().to_string())
            .join(":");
        let find = |name: &str| locate(OsStr::new(name), &[("PATH".into(), path.clone().into())]);
        assert_eq!(find("tool").unwrap(), at("b/tool"));
        let errno = |name: &str| {
            find(name)
                .unwrap_err()
                .raw_os_error()
                .and_then(|errno| i16::try_from(errno).ok())
        };
        assert_eq!(errno("plain"), Some(13));
        assert_eq!(errno("folder"), Some(13));
        assert_eq!(errno("absent"), Some(2));
        assert_eq!(errno(""), Some(2));
        assert_eq!(errno("/etc/passwd/x"), Some(2));
        assert_eq!(
            locate(OsStr::new("sh"), &[]).unwrap().file_name().unwrap(),
            "sh"
        );
    }
}
