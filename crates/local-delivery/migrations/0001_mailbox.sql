-- The mailboxes. Every table carries the account in its primary key and every statement names it, so that the schema
-- can be distributed by account (docs/SHARDING.md). There are no foreign keys: all writes to an account happen under
-- the lock of its row in mailbox.account, and a check per stored message would buy nothing.

DO $$ BEGIN CREATE ROLE posthorn_local_delivery NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;

-- One row a mailbox; its lock orders all changes of the mailbox. Because the lock is held until the commit, changes
-- become visible in the order of their mod-sequences: who has read up to n has missed nothing below n.
CREATE TABLE mailbox.account (
    account_id        uuid   PRIMARY KEY,
    used_bytes        bigint NOT NULL DEFAULT 0,
    messages          bigint NOT NULL DEFAULT 0,
    -- RFC 7162; one counter for all folders of the mailbox. Every changed message gets a number of its own.
    highest_modseq    bigint NOT NULL DEFAULT 0,
    -- Expunges up to this mod-sequence are no longer recorded one by one.
    forgotten_modseq  bigint NOT NULL DEFAULT 0,
    -- Never given twice within a mailbox, so that a folder made again under an old name differs (RFC 3501 §2.3.1.1).
    last_uid_validity bigint NOT NULL,
    next_folder_id    integer NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

CREATE TABLE mailbox.folder (
    account_id     uuid    NOT NULL,
    folder_id      integer NOT NULL,
    -- "/" separates levels; INBOX is always written so.
    name           text    NOT NULL,
    -- RFC 6154: '\Sent' ...; NULL for one's own.
    special_use    text,
    subscribed     boolean NOT NULL DEFAULT true,
    uid_validity   bigint  NOT NULL,
    uid_next       bigint  NOT NULL DEFAULT 1,
    highest_modseq bigint  NOT NULL DEFAULT 0,
    messages       bigint  NOT NULL DEFAULT 0,
    unseen         bigint  NOT NULL DEFAULT 0,
    size           bigint  NOT NULL DEFAULT 0,
    PRIMARY KEY (account_id, folder_id),
    UNIQUE (account_id, name)
) WITH (fillfactor = 50);

CREATE TABLE mailbox.message (
    account_id   uuid    NOT NULL,
    folder_id    integer NOT NULL,
    uid          bigint  NOT NULL,
    content_id   uuid    NOT NULL,
    -- Bytes as read: the headers of this copy and the content.
    size         bigint  NOT NULL,
    -- 1 \Seen, 2 \Answered, 4 \Flagged, 8 \Deleted, 16 \Draft.
    flags        integer NOT NULL DEFAULT 0,
    keywords     text[]  NOT NULL DEFAULT '{}',
    modseq       bigint  NOT NULL,
    received_at  timestamptz NOT NULL DEFAULT now(),
    -- Posthorn's id; NULL for what was appended.
    message_id   uuid,
    -- The headers of this copy (R5); both NULL for what was appended.
    return_path  text,
    delivered_to text,
    PRIMARY KEY (account_id, folder_id, uid)
);
-- What changed since: for Watch and for RFC 7162's CHANGEDSINCE.
CREATE UNIQUE INDEX message_modseq ON mailbox.message (account_id, modseq);
-- Who refers to a content: for the collector.
CREATE INDEX message_content ON mailbox.message (content_id);

-- Messages that went: for Watch and for QRESYNC's VANISHED (RFC 7162 §3.2.10).
CREATE TABLE mailbox.expunged (
    account_id  uuid    NOT NULL,
    modseq      bigint  NOT NULL,
    folder_id   integer NOT NULL,
    uid         bigint  NOT NULL,
    -- Set when the folder itself went.
    folder_name text,
    expunged_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, modseq)
);
CREATE INDEX expunged_at ON mailbox.expunged USING brin (expunged_at);

-- What has been delivered already (R4). The message's id begins with its time, so the table grows at one end and is
-- purged at the other.
CREATE TABLE mailbox.delivery (
    message_id   uuid NOT NULL,
    account_id   uuid NOT NULL,
    -- The address after aliases, as the queue gave it.
    recipient    text NOT NULL,
    delivered_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (message_id, account_id, recipient)
);

GRANT USAGE ON SCHEMA mailbox TO posthorn_local_delivery;
GRANT SELECT, INSERT, UPDATE, DELETE
    ON mailbox.account, mailbox.folder, mailbox.message, mailbox.expunged, mailbox.delivery
    TO posthorn_local_delivery;
