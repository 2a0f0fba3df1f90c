//! smtp-io
