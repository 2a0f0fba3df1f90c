//! Connecting to a server and transferring messages to it.
