//! Pure parsers for what arrives on the wire before anything is trusted.
