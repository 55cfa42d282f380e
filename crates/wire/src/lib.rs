//! Pure parsers for what arrives on the wire before anything is trusted: no I/O, no allocation beyond what a caller
//! keeps, no repair. What two parsers could read differently is refused, because the other parser is upstream.

pub mod client_hello;
pub mod http1;
pub mod http2;
