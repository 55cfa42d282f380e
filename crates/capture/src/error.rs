//! Why the rules are not there, in words that say whose move it is.

use std::io;

/// Why nobody is captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The kernel has no packet filter that can be spoken to.
    #[error("the kernel has no netfilter socket: {0}; it needs CONFIG_NF_TABLES")]
    NoNetfilter(io::Error),
    /// The kernel did not take the rules. Nothing was changed.
    #[error("the kernel did not take the rules, and nothing was changed: {source}{hint}", hint = hint(.source))]
    Refused {
        /// The kernel's word for it.
        source: io::Error,
    },
    /// The rules cannot be read back, or are not what was written: something else changes them, too.
    #[error("the rules were written, but cannot be relied on: {0}")]
    NotAsWritten(String),
    /// Not Linux.
    #[error("capture needs Linux")]
    Unavailable,
}

/// What an operator can do about the usual ones.
fn hint(error: &io::Error) -> &'static str {
    const EPERM: i32 = 1;
    const ENOENT: i32 = 2;
    const EAFNOSUPPORT: i32 = 97;
    const EOPNOTSUPP: i32 = 95;
    match error.raw_os_error() {
        Some(EPERM) => "; it takes CAP_NET_ADMIN in this network namespace",
        Some(EAFNOSUPPORT | EOPNOTSUPP) => {
            "; the kernel has no `inet` tables, which hold IPv4 and IPv6 (CONFIG_NF_TABLES_INET)"
        }
        Some(ENOENT) => {
            "; a part is missing: CONFIG_NFT_CT, and for a redirect CONFIG_NFT_NAT and CONFIG_NFT_REDIR"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_is_named() {
        let refused = |number| {
            let source = io::Error::from_raw_os_error(number);
            CaptureError::Refused { source }.to_string()
        };
        assert!(refused(1).ends_with("it takes CAP_NET_ADMIN in this network namespace"));
        assert!(refused(97).contains("CONFIG_NF_TABLES_INET"));
        assert!(!refused(12).contains("; it"));
    }
}
