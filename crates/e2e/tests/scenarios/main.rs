//! What a user, an operator and other servers see of Posthorn: one scenario a file, named after what happens.

mod answers_watchers_at_once;
mod delivers_to_mailboxes;
mod denies_relaying_to_strangers;
mod expands_aliases_and_lists;
mod gives_back_every_byte;
mod keeps_its_data;
mod takes_a_submission_once;
mod takes_a_thousand_recipients;
