//! A secret in a file: a discovery response in JSON, as Envoy's `path_config_source` reads it.
//! <https://www.envoyproxy.io/docs/envoy/latest/configuration/security/secret#example-three-certificate-rotation>

use std::{fs, io::Read, path::Path};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::Leaf;

const SECRET: &str = outgate_xds::type_urls::SECRET;
/// A leaf's file is about a thousand bytes.
const MOST: u64 = 64 * 1024;

/// What a leaf's file says.
pub(super) struct LeafFile {
    pub(super) name: String,
    pub(super) chain: String,
    pub(super) key: Zeroizing<String>,
}

#[derive(Serialize, Deserialize)]
struct Response<T> {
    resources: [Secret<T>; 1],
}

#[derive(Serialize, Deserialize)]
struct Secret<T> {
    #[serde(rename = "@type")]
    kind: T,
    name: T,
    tls_certificate: Certificate<T>,
}

#[derive(Serialize, Deserialize)]
struct Certificate<T> {
    certificate_chain: Inline<T>,
    private_key: Inline<T>,
}

#[derive(Serialize, Deserialize)]
struct Inline<T> {
    inline_string: T,
}

impl LeafFile {
    /// `None` for whatever is no leaf's file.
    pub(super) fn read(path: &Path) -> Option<Self> {
        // Sized up front: what grows leaves its outgrown copies behind unwiped.
        let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(MOST).ok()?));
        fs::File::open(path)
            .ok()?
            .take(MOST)
            .read_to_end(&mut text)
            .ok()?;
        let response: Response<String> = serde_json::from_slice(&text).ok()?;
        let [secret] = response.resources;
        let certificate = secret.tls_certificate;
        let key = Zeroizing::new(certificate.private_key.inline_string);
        (secret.kind == SECRET).then_some(Self {
            name: secret.name,
            chain: certificate.certificate_chain.inline_string,
            key,
        })
    }
}

/// The text of a leaf's file.
pub(super) fn to_json(leaf: &Leaf) -> Zeroizing<Vec<u8>> {
    let response = Response {
        resources: [Secret {
            kind: SECRET,
            name: leaf.host().as_str(),
            tls_certificate: Certificate {
                certificate_chain: Inline {
                    inline_string: leaf.chain_pem(),
                },
                private_key: Inline {
                    inline_string: leaf.key_pem(),
                },
            },
        }],
    };
    // Line ends become two bytes; sized so that it does not grow.
    let length = 2 * (leaf.chain_pem().len() + leaf.key_pem().len()) + 1024;
    let mut text = Zeroizing::new(Vec::with_capacity(length));
    // Writing to a vector cannot fail.
    let _ = serde_json::to_writer(&mut *text, &response);
    text
}
