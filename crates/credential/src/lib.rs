//! The only crate that holds plaintext secrets: sources, leases, forms, scrubbing.
