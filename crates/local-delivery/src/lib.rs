//! local-delivery
