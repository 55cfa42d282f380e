//! Decides where the CA is that the deployment supplies. Whether it can sign is seen when it is read, at the start and with
//! every renewal.

use std::path::Path;

use super::{listen::check_tls, report::Report};
use crate::{TlsFiles, file::FileCa, node::KeyPath};

pub(super) fn check_ca(
    written: Option<&FileCa>,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<TlsFiles> {
    let FileCa { certificate, key } = written?;
    check_tls(certificate, key, &KeyPath::of("ca"), folder, report)
}
