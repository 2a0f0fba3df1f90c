//! The work stream, against a queue of the test's own.
