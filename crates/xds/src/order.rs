//! Which type goes first where several are due: make before break. A cluster is there before a route points to it, and
//! goes after no route does.

use crate::source::type_urls;

/// The smaller goes first.
pub(crate) fn rank(type_url: &str) -> u8 {
    match type_url {
        type_urls::CLUSTER => 0,
        type_urls::ENDPOINTS => 1,
        type_urls::LISTENER => 2,
        type_urls::ROUTE => 3,
        // Never held back for another: a cluster or a listener may wait for it before it answers.
        type_urls::SECRET => 4,
        _ => 5,
    }
}

/// What this one points to must be there before it.
pub(crate) fn points_to_clusters(type_url: &str) -> bool {
    matches!(type_url, type_urls::LISTENER | type_urls::ROUTE)
}
