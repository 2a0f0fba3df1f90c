-- The bytes of messages (R5): written once, read by queue and local-delivery.

DO $$ BEGIN CREATE ROLE posthorn_queue NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
DO $$ BEGIN CREATE ROLE posthorn_local_delivery NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;

-- Every chunk but a content's last has exactly 256 KiB, so that an offset tells its chunk.
CREATE TABLE content.chunk (
    content_id uuid    NOT NULL,
    seq        integer NOT NULL,
    data       bytea   NOT NULL,
    PRIMARY KEY (content_id, seq)
) WITH (toast_tuple_target = 8160);
-- Mail is mostly base64 and text that is read back whole: no time is spent on compressing it, and a part of a chunk
-- can be read without the rest.
ALTER TABLE content.chunk ALTER COLUMN data SET STORAGE EXTERNAL;

-- Content that, as far as its last holder knew, nobody refers to any more. The collector looks once more before it
-- deletes.
CREATE TABLE content.released (
    content_id  uuid        PRIMARY KEY,
    released_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX released_at ON content.released (released_at);

GRANT USAGE ON SCHEMA content TO posthorn_queue, posthorn_local_delivery;
GRANT SELECT, INSERT, DELETE ON content.chunk TO posthorn_queue, posthorn_local_delivery;
GRANT SELECT, INSERT, UPDATE, DELETE ON content.released TO posthorn_queue, posthorn_local_delivery;
