//! What Outgate promises, by the ids that a scenario's table and `docs/planes.md` use.

macro_rules! promises {
    ($($id:ident $title:literal)*) => {
        /// Something that a scenario can show to be broken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Promise {
            $(#[doc = $title] $id,)*
        }

        impl Promise {
            /// Every promise, in order.
            pub const ALL: &[Self] = &[$(Self::$id,)*];

            /// Its id, such as `P1`.
            #[must_use]
            pub fn id(self) -> &'static str {
                match self { $(Self::$id => stringify!($id),)* }
            }

            /// What it says, in a line.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$id => $title,)* }
            }
        }
    };
}

promises! {
    P1 "What no rule names is not reached, resolved or dialled"
    P2 "The posture follows from need: without a credential there is no CA"
    P3 "An unlisted server name is dropped before the handshake: no leaf, no dial"
    P4 "The address that is dialled is the one that was vetted, against the deny-set"
    P5 "CONNECT, server name and `Host` agree on every request"
    P6 "Names are compared canonically, wildcards have one shape, ports are part of the rule"
    P7 "A rule may narrow by method, path and fields; what is judged is what is sent"
    P8 "Every denial says why, to the client or at least to the record"
    P9 "Upstream certificates are verified strictly; a failure closes"
    P11 "Streams, upgrades, trailers and large bodies pass un-buffered"
    S1 "Only a token with a good signature and good claims is a session's"
    S2 "The token is read where clients put credentials"
    S3 "Authenticate, denylist, authorize, limit, inject, originate: in this order, on every road"
    S4 "A credential is drawn only by a token that the request itself presents"
    S5 "Idle sessions and whole lifetimes end"
    S6 "A session's limits hold, and touch no other session"
    S7 "Unusual amounts are recorded, and end an armed session"
    I1 "The guest's own credentials are replaced; a session token never reaches an upstream"
    I2 "A credential is attached in the form that the rule names"
    I3 "A credential is bound to its destinations"
    I4 "Rotation needs no restart and fails no request; a missing credential fails closed"
    I5 "No secret is in a log, an error or a file that may not have it"
    I6 "A credential that comes back is scrubbed"
    I7 "A session on the denylist draws nothing"
    C1 "No guest reaches the operators' door"
    C2 "Operators create, list, limit, end and kill sessions"
    C3 "Revocation cuts live streams and tunnels within a second"
    C7 "Without its control plane a data plane draws no credential for long"
    A1 "Each decision leaves one record, by whatever path it ended"
    A2 "An edit of the audit trail is found"
    A3 "A full audit store refuses credentialed requests and loses nothing"
    A4 "No secret and no token is in a record"
    D1 "It starts only on a good file, reloads only a good file, stops when told, and stands abuse"
    D7 "Decrypted traffic and session data stay inside: what is shown of them is local, or for who may read the trail"
    E2 "Leaves are minted for allowed names only, and renewed without a lost handshake"
    E3 "Credentials reach Envoy by SDS, and are really taken back"
    E5 "Control plane and data plane fail apart, and closed"
}
