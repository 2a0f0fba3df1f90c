//! Replies as they go over the wire (RFC 5321 §4.2).
