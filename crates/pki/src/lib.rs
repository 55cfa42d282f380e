//! The CA, leaf minting, trust bundles.
