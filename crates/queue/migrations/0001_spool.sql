-- What is still owed (R2). A message and its recipients are deleted in the transaction in which the last recipient ends;
-- what happened to it stays in `event` for a while.

DO $$ BEGIN CREATE ROLE posthorn_queue NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;

CREATE TABLE spool.message (
    message_id  uuid        PRIMARY KEY,
    -- Empty: the null sender.
    sender      text        NOT NULL,
    received_at timestamptz NOT NULL,
    -- When it is given up.
    expires_at  timestamptz NOT NULL,
    -- When it must be looked at: the next age for a delay notice, or its end. Infinity: while it is held past its end.
    timer_at    timestamptz NOT NULL,
    -- Ages for delay notices that it has reached.
    noticed     smallint    NOT NULL DEFAULT 0,
    -- Of the content, in bytes.
    size        bigint      NOT NULL,
    -- As posthorn.mail.v1.Body and Ret number them.
    body        smallint    NOT NULL,
    smtputf8    boolean     NOT NULL,
    ret         smallint    NOT NULL,
    envelope_id text,
    -- posthorn.mail.v1.Origin, encoded.
    origin      bytea       NOT NULL,
    traceparent text        NOT NULL,
    -- Whom work is taken in turns from.
    flow        bigint      NOT NULL,
    held        boolean     NOT NULL DEFAULT false,
    poison      boolean     NOT NULL DEFAULT false,
    -- Recipients so far, ended and replaced ones included: the next one's number less one.
    recipients  integer     NOT NULL,
    -- Those of them that have not ended.
    pending     integer     NOT NULL,
    -- A copy may lie in a mailbox though no recipient says so (one that was routed anew).
    maybe_local boolean     NOT NULL DEFAULT false
) WITH (fillfactor = 90);
CREATE INDEX message_timer ON spool.message (timer_at);

CREATE TABLE spool.recipient (
    message_id      uuid     NOT NULL,
    recipient_no    integer  NOT NULL,
    address         text     NOT NULL,
    -- 0 is never; else the sum of 1 success, 2 failure, 4 delay; null when the client said nothing.
    notify          smallint,
    original        text,
    -- This copy's sender when not the message's.
    sender          text,
    -- The recipient that was expanded to this one.
    parent          integer,
    -- 0 fresh, 1 local, 2 remote, 3 delivered, 4 failed, 5 expanded.
    state           smallint NOT NULL,
    -- What work on it is queued by.
    lane            bigint   NOT NULL,
    -- posthorn.work.v1.LocalTarget or RemoteTarget, encoded; which one, `destination` tells.
    place           bytea,
    -- Of remote recipients.
    destination     text,
    attempts        integer  NOT NULL DEFAULT 0,
    -- Null once it has ended.
    next_attempt_at timestamptz,
    -- posthorn.trace.v1.Event with status, server and time of the last attempt, encoded.
    last            bytea,
    PRIMARY KEY (message_id, recipient_no)
) WITH (fillfactor = 70);
-- Room in each page keeps most updates off the indexes: they leave next_attempt_at alone or delete the row soon after.
CREATE INDEX recipient_due ON spool.recipient (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX recipient_destination ON spool.recipient (destination) WHERE destination IS NOT NULL;

CREATE TABLE spool.idempotency (
    scope      text        NOT NULL,
    key        text        NOT NULL,
    digest     bytea       NOT NULL,
    answer     bytea       NOT NULL,
    message_id uuid        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_created ON spool.idempotency USING brin (created_at);

-- Destinations that nothing is sent to until they are resumed.
CREATE TABLE spool.suspension (
    destination text        PRIMARY KEY,
    reason      text        NOT NULL,
    since       timestamptz NOT NULL DEFAULT now()
);

-- What happened. Rows come in the order of time and are deleted in it.
CREATE TABLE spool.event (
    message_id uuid        NOT NULL,
    at         timestamptz NOT NULL,
    -- posthorn.trace.v1.TraceMessageResponse, encoded: the rows of a message, one after the other, are one such message.
    events     bytea       NOT NULL
);
CREATE INDEX event_message ON spool.event (message_id);
CREATE INDEX event_at ON spool.event USING brin (at);

GRANT USAGE ON SCHEMA spool TO posthorn_queue;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA spool TO posthorn_queue;
REVOKE ALL ON spool.migration FROM posthorn_queue;
