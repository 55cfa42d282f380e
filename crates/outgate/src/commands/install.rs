//! `outgate install`: copies this program to where another image can run it.

use std::{
    fs::{File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::ExitCode,
};

use anyhow::{Context, Result};

use crate::{cli::Install, style::say};

const NAME: &str = "outgate";

pub(crate) fn run(install: &Install) -> Result<ExitCode> {
    let target = install.folder.join(NAME);
    copy(&install.folder, &target).with_context(|| target.display().to_string())?;
    say!("{}", target.display());
    Ok(ExitCode::SUCCESS)
}

/// Nobody finds half a program: it gets its name once it is whole.
fn copy(folder: &Path, target: &Path) -> Result<()> {
    // What runs, even if another file has its name by now.
    let own = if cfg!(target_os = "linux") {
        "/proc/self/exe".into()
    } else {
        std::env::current_exe()?
    };
    let mut own = File::open(own).context("this program cannot be read")?;
    let mut file = tempfile::Builder::new()
        .prefix(".outgate-")
        .tempfile_in(folder)?;
    io::copy(&mut own, &mut file)?;
    // After it was made: whatever the umask is, every user of the other image has to run it.
    file.as_file()
        .set_permissions(Permissions::from_mode(0o755))?;
    file.as_file().sync_all()?;
    // Closed first: a program that is open for writing cannot be started.
    file.into_temp_path().persist(target)?;
    Ok(())
}
