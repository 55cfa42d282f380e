//! What every data plane must do, as scenarios over real sockets. The scenarios are in `tests/`, one file a theme;
//! here is what they share: the [`plane`] under test and the [`world`] around it, the [`promise`]s that a scenario can
//! break, and the table by which each is run ([`scenario`]).

pub mod page;
pub mod plane;
pub mod promise;
pub mod record;
pub mod scenario;
pub mod world;

pub use outgate_testkit::{
    Alpn, CertificateKind, Channel, DnsAnswer, DnsServer, Guest, Headers, Origin, OriginOptions,
    Outcome, Req, Response, TestCa, TlsOptions, Way, codec, eventually, frames, h1::H1, hello,
    message::ReqBody, raw, websocket, within,
};
pub use world::{K1, K2, Mark, Setup, World, add_destination, destination, hurry};
