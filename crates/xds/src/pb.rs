//! The messages in use, under one roof.

pub(crate) use outgate_envoy_proto::{
    envoy::{
        config::core::v3::{DataSource, Node, data_source::Specifier},
        extensions::transport_sockets::tls::v3::{
            GenericSecret, Secret, TlsCertificate, secret::Type as SecretType,
        },
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
            Resource,
        },
    },
    google::rpc::Status,
};
