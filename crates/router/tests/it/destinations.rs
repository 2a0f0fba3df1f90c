//! The servers for a domain.
