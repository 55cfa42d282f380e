//! The operator's side: live sessions, the denylist, the operator socket.
