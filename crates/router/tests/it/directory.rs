//! The directory's API.
