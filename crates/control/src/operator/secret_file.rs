//! Reads the files of operators' tokens and webhook secrets. A file that everybody on the machine can read is refused:
//! what it holds counts as known. Group rights to read are accepted: that is how secrets are mounted for a process that
//! is not root.

use std::{
    fs::OpenOptions,
    io::Read,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use zeroize::Zeroizing;

/// The largest file, in bytes.
const MOST: u64 = 16 * 1024;

/// The file's text without the white space around it; why not, for people.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    // Non-blocking, so that a fifo in the file's place cannot hold the start up.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let explain = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(|e| explain(&e))?;
    // Judged on the open file: a check by name could be of another one.
    let found = file.metadata().map_err(|e| explain(&e))?;
    if !found.is_file() || found.len() > MOST {
        return Err(explain(&"is no file of at most 16 KiB"));
    }
    if found.permissions().mode() & 0o027 != 0 {
        return Err(explain(
            &"other users can read or change it; set its mode to 0600",
        ));
    }
    // Sized up front: a buffer that grows leaves an unwiped copy behind.
    let size = usize::try_from(found.len()).unwrap_or_default() + 1;
    let mut text = Zeroizing::new(String::with_capacity(size));
    file.take(MOST)
        .read_to_string(&mut text)
        .map_err(|e| explain(&e))?;
    let trimmed = text.trim();
    let mut kept = Zeroizing::new(String::with_capacity(trimmed.len()));
    kept.push_str(trimmed);
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};

    use super::*;

    #[test]
    fn a_file_is_read_trimmed_and_one_that_others_may_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        write(&path, "  secret\n").unwrap();
        for (mode, good) in [(0o600, true), (0o440, true), (0o604, false), (0o620, false)] {
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let read = read(&path);
            assert_eq!(read.is_ok(), good, "{mode:o}");
            assert!(read.is_err() || read.is_ok_and(|text| *text == "secret"));
        }
        assert!(read(dir.path()).is_err());
        assert!(read(&dir.path().join("none")).is_err());
    }
}
