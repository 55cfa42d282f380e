//! Session tokens: mint, verify, rotate, JWKS.
