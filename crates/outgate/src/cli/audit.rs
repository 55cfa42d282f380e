//! The arguments of `outgate audit`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use outgate_audit::VerifierKey;

use super::reach::{Output, Reach};

#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(flatten)]
    pub(crate) reach: Reach,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) action: AuditAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditAction {
    /// Print the last records, one a line
    Tail {
        /// The folder of the trail [default: the gateway's]
        path: Option<PathBuf>,
        /// How many
        #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
        lines: u64,
        /// Go on with those that come
        #[arg(short, long)]
        follow: bool,
    },
    /// Print all records, one a line
    Show {
        /// The folder or file [default: the gateway's]
        path: Option<PathBuf>,
    },
    /// Verify the trail: finds any edit, gap, reordering or truncation, and checks the signed heads
    Verify {
        /// The folder or file [default: the gateway's]
        path: Option<PathBuf>,
        /// Accept heads that this key signed, and no others; may be repeated [default: the keys that the trail names]
        #[arg(long, value_name = "VKEY")]
        key: Vec<VerifierKey>,
        /// Earlier files were moved away: begin with the oldest that is there
        #[arg(long)]
        archived: bool,
    },
    /// Prove that a record is in the trail: prints the record, and its inclusion under a signed head (C2SP tlog-proof)
    Prove {
        /// The record's sequence number
        seq: u64,
        /// Write to this file instead
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Check what `outgate audit prove` printed; needs no trail
    CheckProof {
        /// The file; - for standard input
        file: PathBuf,
        /// The key that `outgate audit key` printed, from where the gateway's host could not change it
        #[arg(long, value_name = "VKEY")]
        key: VerifierKey,
        /// The record's line of the trail, where the file holds the proof alone
        #[arg(long, value_name = "FILE")]
        record: Option<PathBuf>,
    },
    /// Print the key that signs the trail's heads, to pin it elsewhere
    Key,
    /// Print OCSF records, one a line, without their place in the chain. Exit status 1 if the trail is damaged
    Export {
        /// The folder of the trail [default: the gateway's]
        path: Option<PathBuf>,
        /// The first sequence number [default: the oldest that is there]
        #[arg(long, value_name = "SEQ")]
        from: Option<u64>,
        /// The last sequence number [default: the newest]
        #[arg(long, value_name = "SEQ")]
        to: Option<u64>,
        /// Write to this file instead, which appears when it is whole
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}
