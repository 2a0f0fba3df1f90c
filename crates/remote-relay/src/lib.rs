//! remote-relay
