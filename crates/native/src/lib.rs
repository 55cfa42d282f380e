//! The native data plane: listeners, entries, TLS, upstream pool, relay, drain.
