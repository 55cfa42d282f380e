//! The fuzz targets as tests. Each has a folder in `__fuzz__/`: `corpus/` with seeds, `crashes/` with what once failed.

#[test]
fn connect() {
    bolero::check!().for_each(|input: &[u8]| outgate_fuzz::connect(input));
}

#[test]
fn absolute_form() {
    bolero::check!().for_each(|input: &[u8]| outgate_fuzz::absolute_form(input));
}

#[test]
fn client_hello() {
    bolero::check!().for_each(|input: &[u8]| outgate_fuzz::client_hello(input));
}

#[test]
fn question() {
    bolero::check!().for_each(|input: &[u8]| outgate_fuzz::question(input));
}

#[test]
fn http1_head() {
    bolero::check!().for_each(|input: &[u8]| outgate_fuzz::http1_head(input));
}

#[test]
fn config() {
    bolero::check!().for_each(|input: &[u8]| outgate_fuzz::config(input));
}

#[cfg(feature = "discovery")]
#[test]
fn delta_stream() {
    bolero::check!().for_each(|input: &[u8]| outgate_fuzz::delta_stream(input));
}

#[cfg(feature = "discovery")]
#[test]
fn world_stream() {
    bolero::check!().for_each(|input: &[u8]| outgate_fuzz::world_stream(input));
}

#[cfg(feature = "discovery")]
#[test]
fn delta_secrets() {
    bolero::check!().for_each(|input: &[u8]| outgate_fuzz::delta_secrets(input));
}

#[cfg(feature = "discovery")]
#[test]
fn world_secrets() {
    bolero::check!().for_each(|input: &[u8]| outgate_fuzz::world_secrets(input));
}

#[test]
fn envoy_log() {
    bolero::check!().for_each(|input: &[u8]| outgate_fuzz::envoy_log(input));
}

#[cfg(feature = "discovery")]
#[test]
fn message() {
    bolero::check!().for_each(|input: &[u8]| outgate_fuzz::message(input));
}

#[cfg(feature = "questions")]
#[test]
fn evidence() {
    bolero::check!().for_each(|input: &[u8]| outgate_fuzz::evidence(input));
}
