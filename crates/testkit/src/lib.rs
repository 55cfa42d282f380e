//! Test support: fake clock and resolver, real TLS origins, a real DNS server, real gateways.
