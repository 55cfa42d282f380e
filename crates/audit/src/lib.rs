//! OCSF records, the hash chain, the sinks.
