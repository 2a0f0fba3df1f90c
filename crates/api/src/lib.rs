#![doc = include_str!("../README.md")]

mod convert;
pub mod error;
pub mod key;

pub use convert::{
    duration, known, message_id, message_id_bytes, one_line, optional_text, parse_field, period, time_of,
    timestamp,
};

/// The descriptors of all packages, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/descriptor.bin");

// The generated code refers to other packages as `super::super::mail::v1`: the modules must nest as the packages do.
macro_rules! package {
    ($name:ident, $file:literal, $doc:literal) => {
        #[doc = $doc]
        pub mod $name {
            #[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated")]
            pub mod v1 {
                include!($file);
            }
        }
    };
}

package!(mail, "gen/posthorn.mail.v1.rs", "The words that all contracts share.");
package!(submission, "gen/posthorn.submission.v1.rs", "Programs hand messages in (public).");
package!(mailbox, "gen/posthorn.mailbox.v1.rs", "Programs read mailboxes (public).");
package!(
    directory,
    "gen/posthorn.directory.v1.rs",
    "Domains, accounts, aliases, lists, routes, keys (public)."
);
package!(queue, "gen/posthorn.queue.v1.rs", "What waits, and what an operator does about it (public).");
package!(trace, "gen/posthorn.trace.v1.rs", "What happened to a message (public).");
package!(spool, "gen/posthorn.spool.v1.rs", "How messages enter the queue (internal).");
package!(work, "gen/posthorn.work.v1.rs", "The stream between the queue and its workers (internal).");
package!(routing, "gen/posthorn.routing.v1.rs", "What the other services ask the router (internal).");
