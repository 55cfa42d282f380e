//! Responses, written onto the wire from what is shared: a resource is encoded once, whoever it goes to, and a secret
//! is not copied into a message that nobody wipes.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use bytes::BufMut;
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::{pb, source::Resource};

/// A response that writes itself.
pub(crate) trait Outgoing: Send + 'static {
    fn write(&self, out: &mut impl BufMut);
}

/// `envoy.service.discovery.v3.DeltaDiscoveryResponse`.
pub(crate) struct DeltaResponse {
    pub(crate) type_url: Arc<str>,
    pub(crate) nonce: Arc<str>,
    pub(crate) resources: Vec<Resource>,
    /// What the client has and may use for longer.
    pub(crate) prolonged: Vec<Prolonged>,
    pub(crate) removed: Vec<Arc<str>>,
}

/// A resource whose time begins anew.
pub(crate) struct Prolonged {
    pub(crate) name: Arc<str>,
    pub(crate) version: Arc<str>,
    pub(crate) ttl: Duration,
}

impl Prolonged {
    fn message(&self) -> pb::Resource {
        pb::Resource {
            name: self.name.to_string(),
            version: self.version.to_string(),
            ttl: self.ttl.try_into().ok(),
            ..pb::Resource::default()
        }
    }
}

/// `envoy.service.discovery.v3.DiscoveryResponse`.
pub(crate) struct WorldResponse {
    pub(crate) type_url: Arc<str>,
    pub(crate) nonce: Arc<str>,
    pub(crate) version: Arc<str>,
    pub(crate) resources: Vec<Resource>,
}

impl Outgoing for DeltaResponse {
    fn write(&self, out: &mut impl BufMut) {
        text(1, &self.nonce, out);
        for resource in &self.resources {
            nested(2, delta_len(&self.type_url, resource), out);
            write_delta(&self.type_url, resource, out);
        }
        for prolonged in &self.prolonged {
            let message = prolonged.message();
            nested(2, message.encoded_len(), out);
            // There is room: the buffer grows.
            let _ = message.encode(out);
        }
        text(4, &self.type_url, out);
        text(5, &self.nonce, out);
        for name in &self.removed {
            bytes(6, name.as_bytes(), out);
        }
    }
}

impl Outgoing for WorldResponse {
    fn write(&self, out: &mut impl BufMut) {
        text(1, &self.version, out);
        for resource in &self.resources {
            let body = resource.body.bytes();
            nested(2, any_len(&self.type_url, body), out);
            write_any(&self.type_url, body, out);
        }
        text(4, &self.type_url, out);
        text(5, &self.nonce, out);
    }
}

/// `envoy.service.discovery.v3.Resource`.
fn write_delta(type_url: &str, resource: &Resource, out: &mut impl BufMut) {
    let body = resource.body.bytes();
    text(1, &resource.version, out);
    nested(2, any_len(type_url, body), out);
    write_any(type_url, body, out);
    text(3, &resource.name, out);
    if let Some(ttl) = ttl(resource) {
        nested(6, ttl.encoded_len(), out);
        // There is room: the buffer grows.
        let _ = ttl.encode(out);
    }
}

fn delta_len(type_url: &str, resource: &Resource) -> usize {
    text_len(1, &resource.version)
        + nested_len(2, any_len(type_url, resource.body.bytes()))
        + text_len(3, &resource.name)
        + ttl(resource).map_or(0, |ttl| nested_len(6, ttl.encoded_len()))
}

fn ttl(resource: &Resource) -> Option<prost_types::Duration> {
    resource.ttl?.try_into().ok()
}

/// `google.protobuf.Any`.
fn write_any(type_url: &str, value: &[u8], out: &mut impl BufMut) {
    text(1, type_url, out);
    if !value.is_empty() {
        bytes(2, value, out);
    }
}

fn any_len(type_url: &str, value: &[u8]) -> usize {
    let value = match value.len() {
        0 => 0,
        len => nested_len(2, len),
    };
    text_len(1, type_url) + value
}

/// A field that is left out where it is empty.
fn text(tag: u32, value: &str, out: &mut impl BufMut) {
    if !value.is_empty() {
        bytes(tag, value.as_bytes(), out);
    }
}

fn text_len(tag: u32, value: &str) -> usize {
    match value.len() {
        0 => 0,
        len => nested_len(tag, len),
    }
}

fn bytes(tag: u32, value: &[u8], out: &mut impl BufMut) {
    nested(tag, value.len(), out);
    out.put_slice(value);
}

/// The head of a field of so many bytes.
fn nested(tag: u32, len: usize, out: &mut impl BufMut) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(as_u64(len), out);
}

fn nested_len(tag: u32, len: usize) -> usize {
    key_len(tag) + encoded_len_varint(as_u64(len)) + len
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// Reads requests of one kind, and writes responses of another.
pub(crate) struct Wire<Request, Response>(PhantomData<fn() -> (Request, Response)>);

impl<Request, Response> Default for Wire<Request, Response> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Request, Response> Codec for Wire<Request, Response>
where
    Request: Message + Default + 'static,
    Response: Outgoing,
{
    type Encode = Response;
    type Decode = Request;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<Request, Response: Outgoing> Encoder for Wire<Request, Response> {
    type Item = Response;
    type Error = Status;

    fn encode(&mut self, response: Response, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        response.write(out);
        Ok(())
    }
}

impl<Request: Message + Default, Response> Decoder for Wire<Request, Response> {
    type Item = Request;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Request>, Status> {
        Request::decode(bytes)
            .map(Some)
            .map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Body;

    fn resources() -> Vec<Resource> {
        vec![
            Resource::new("a", "1", Body::from_encoded(vec![7; 300])),
            Resource::new("", "", Body::from_encoded(Vec::new())),
            Resource::new("c", "3", Body::from_encoded(vec![0]))
                .with_ttl(Duration::from_millis(1_500)),
        ]
    }

    #[test]
    fn a_delta_response_reads_as_what_was_written() {
        let response = DeltaResponse {
            type_url: "type".into(),
            nonce: "n".into(),
            resources: resources(),
            prolonged: vec![Prolonged {
                name: "p".into(),
                version: "4".into(),
                ttl: Duration::from_secs(7),
            }],
            removed: vec!["x".into(), "y".into()],
        };
        let mut wire = Vec::new();
        response.write(&mut wire);
        let read = pb::DeltaDiscoveryResponse::decode(wire.as_slice()).unwrap();
        assert_eq!((read.type_url.as_str(), read.nonce.as_str()), ("type", "n"));
        assert_eq!(read.removed_resources, ["x", "y"]);
        for (read, written) in read.resources.iter().zip(&response.resources) {
            assert_eq!(read.name, *written.name);
            assert_eq!(read.version, *written.version);
            let any = read.resource.as_ref().unwrap();
            assert_eq!(any.type_url, "type");
            assert_eq!(any.value, written.body.bytes());
            let ttl = read.ttl.map(|ttl| Duration::try_from(ttl).unwrap());
            assert_eq!(ttl, written.ttl);
        }
        assert_eq!(read.resources.len(), 4);
        let prolonged = &read.resources[3];
        assert_eq!((&*prolonged.name, &*prolonged.version), ("p", "4"));
        assert!(prolonged.resource.is_none() && prolonged.ttl.is_some());
        assert_eq!(read.encoded_len(), wire.len());
    }

    #[test]
    fn a_state_of_the_world_response_reads_as_what_was_written() {
        let response = WorldResponse {
            type_url: "type".into(),
            nonce: "n".into(),
            version: "v".into(),
            resources: resources(),
        };
        let mut wire = Vec::new();
        response.write(&mut wire);
        let read = pb::DiscoveryResponse::decode(wire.as_slice()).unwrap();
        assert_eq!(read.version_info, "v");
        assert_eq!((read.type_url.as_str(), read.nonce.as_str()), ("type", "n"));
        let bodies: Vec<&[u8]> = read.resources.iter().map(|any| &any.value[..]).collect();
        assert_eq!(bodies, [&[7; 300][..], &[], &[0]]);
        assert_eq!(read.encoded_len(), wire.len());
    }
}
