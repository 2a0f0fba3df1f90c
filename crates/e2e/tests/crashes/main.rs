//! What becomes of mail when parts of Posthorn die under load (R1, R3, R4).

mod loses_nothing;
mod starts_dead_services_again;
