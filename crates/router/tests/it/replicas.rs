//! Several routers on one directory.
