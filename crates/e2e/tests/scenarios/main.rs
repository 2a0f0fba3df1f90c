//! What a user, an operator and other servers see of Posthorn: one scenario per file, named after what happens.

mod answers_watchers_at_once;
mod converts_8bit_for_old_servers;
mod delivers_once_by_whatever_ways;
mod delivers_to_mailboxes;
mod denies_relaying_to_strangers;
mod encrypts_where_offered;
mod expands_aliases_and_lists;
mod finds_servers_through_the_dns;
mod follows_a_message;
mod gives_back_every_byte;
mod gives_up_and_says_so;
mod keeps_its_data;
mod never_bounces_to_the_null_sender;
mod obeys_the_operator;
mod reports_what_was_asked_for;
mod retries_what_is_put_off;
mod takes_a_submission_once;
mod takes_a_thousand_recipients;
