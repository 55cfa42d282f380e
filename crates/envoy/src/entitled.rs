//! Which data planes may have a credential, wherever one asks for it.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use outgate_journey::policy::CredentialName;
use outgate_mutual::canonical_name;

/// Which data planes may have a credential; without an entry, all of them.
#[derive(Default)]
pub struct Entitled(ArcSwap<BTreeMap<CredentialName, Vec<String>>>);

impl Entitled {
    /// Takes another list over.
    pub fn replace(&self, mut planes: BTreeMap<CredentialName, Vec<String>>) {
        for names in planes.values_mut() {
            let written = std::mem::take(names).into_iter();
            names.extend(written.map(canonical_name));
        }
        self.0.store(Arc::new(planes));
    }

    /// Whether the data plane with this name on its certificate may have it.
    #[must_use]
    pub fn may_have(&self, credential: &CredentialName, plane: &str) -> bool {
        let listed = self.0.load();
        let planes = listed.get(credential);
        planes.is_none_or(|planes| planes.iter().any(|name| name == plane))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_plane_is_entitled_however_its_name_is_spelled() {
        let entitled = Entitled::default();
        let (listed, open) = (CredentialName::new("a"), CredentialName::new("b"));
        let names = ["Envoy-1.Example.org", "spiffe://A/b"].map(str::to_owned);
        entitled.replace([(listed.clone(), names.into())].into());
        for (name, may) in [
            ("envoy-1.example.org", true),
            ("spiffe://A/b", true),
            ("spiffe://a/b", false),
            ("envoy-1", false),
            ("", false),
        ] {
            assert_eq!(entitled.may_have(&listed, name), may, "{name}");
            assert!(entitled.may_have(&open, name), "{name}");
        }
    }
}
