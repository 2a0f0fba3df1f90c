-- Who and what is where. Names are stored as they are looked up: domains as lower-case A-labels, local parts folded to
-- lower case. Addresses that are only targets (aliases, members, owners, catch-all) are kept as they were given.

DO $$ BEGIN CREATE ROLE posthorn_router NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;

CREATE TABLE directory.tenants (
    tenant_id    text        PRIMARY KEY,
    display_name text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);
INSERT INTO directory.tenants (tenant_id, display_name) VALUES ('default', 'Default');

CREATE TABLE directory.domains (
    name       text        PRIMARY KEY,
    tenant_id  text        NOT NULL CONSTRAINT domain_tenant REFERENCES directory.tenants,
    catch_all  text,
    separator  text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX domains_by_tenant ON directory.domains (tenant_id);

-- Every address of ours, so that an account, an alias and a list cannot share one.
CREATE TABLE directory.addresses (
    domain text NOT NULL CONSTRAINT address_domain REFERENCES directory.domains,
    local  text NOT NULL,
    kind   text NOT NULL CHECK (kind IN ('account', 'alias', 'list')),
    PRIMARY KEY (domain, local)
);

CREATE TABLE directory.accounts (
    account_id    uuid        PRIMARY KEY,
    domain        text        NOT NULL,
    local         text        NOT NULL,
    display_name  text        NOT NULL,
    -- Argon2id, in PHC form; NULL: no one can log in.
    password_hash text,
    -- 0: no limit.
    quota_bytes   bigint      NOT NULL CHECK (quota_bytes >= 0),
    disabled      boolean     NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (domain, local),
    FOREIGN KEY (domain, local) REFERENCES directory.addresses ON DELETE CASCADE
);

CREATE TABLE directory.aliases (
    domain     text        NOT NULL,
    local      text        NOT NULL,
    targets    text[]      NOT NULL CHECK (cardinality(targets) BETWEEN 1 AND 1000),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (domain, local),
    FOREIGN KEY (domain, local) REFERENCES directory.addresses ON DELETE CASCADE
);

CREATE TABLE directory.lists (
    domain     text        NOT NULL,
    local      text        NOT NULL,
    owner      text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (domain, local),
    FOREIGN KEY (domain, local) REFERENCES directory.addresses ON DELETE CASCADE
);

CREATE TABLE directory.list_members (
    domain text NOT NULL,
    local  text NOT NULL,
    member text NOT NULL,
    PRIMARY KEY (domain, local, member),
    FOREIGN KEY (domain, local) REFERENCES directory.lists ON DELETE CASCADE
);

CREATE TABLE directory.routes (
    -- A domain, '.example.com' for all below it, or '*'.
    pattern    text        PRIMARY KEY,
    -- [{"host": "mail.example.com", "port": 25}, ...] in the order in which to try them; port 0 is the relay's.
    hosts      jsonb       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE directory.keys (
    key_id      text        PRIMARY KEY,
    tenant_id   text        NOT NULL CONSTRAINT key_tenant REFERENCES directory.tenants,
    description text        NOT NULL,
    scopes      text[]      NOT NULL,
    -- SHA-256 of the secret; it has 256 random bits, so that no slow hash is needed.
    secret_hash bytea       NOT NULL UNIQUE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz
);
CREATE INDEX keys_by_tenant ON directory.keys (tenant_id);

-- Tells every router what changed, when it is committed: channel posthorn_directory, payload 'domain NAME',
-- 'address LOCAL@DOMAIN', 'routes' or 'keys'. Postgres sends equal payloads of one transaction once.
CREATE FUNCTION directory.tell_domain() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('posthorn_directory', 'domain ' || coalesce(NEW.name, OLD.name));
    RETURN NULL;
END $$;

CREATE FUNCTION directory.tell_address() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('posthorn_directory',
        'address ' || coalesce(NEW.local, OLD.local) || '@' || coalesce(NEW.domain, OLD.domain));
    RETURN NULL;
END $$;

CREATE FUNCTION directory.tell_table() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('posthorn_directory', TG_ARGV[0]);
    RETURN NULL;
END $$;

CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON directory.domains
    FOR EACH ROW EXECUTE FUNCTION directory.tell_domain();
CREATE TRIGGER tell AFTER INSERT OR DELETE ON directory.addresses
    FOR EACH ROW EXECUTE FUNCTION directory.tell_address();
CREATE TRIGGER tell AFTER UPDATE ON directory.accounts
    FOR EACH ROW EXECUTE FUNCTION directory.tell_address();
CREATE TRIGGER tell AFTER UPDATE ON directory.aliases
    FOR EACH ROW EXECUTE FUNCTION directory.tell_address();
CREATE TRIGGER tell AFTER UPDATE ON directory.lists
    FOR EACH ROW EXECUTE FUNCTION directory.tell_address();
CREATE TRIGGER tell AFTER INSERT OR DELETE ON directory.list_members
    FOR EACH ROW EXECUTE FUNCTION directory.tell_address();
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON directory.routes
    FOR EACH STATEMENT EXECUTE FUNCTION directory.tell_table('routes');
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON directory.keys
    FOR EACH STATEMENT EXECUTE FUNCTION directory.tell_table('keys');

GRANT USAGE ON SCHEMA directory TO posthorn_router;
GRANT SELECT, INSERT, UPDATE, DELETE ON directory.tenants, directory.domains, directory.addresses, directory.accounts,
    directory.aliases, directory.lists, directory.list_members, directory.routes, directory.keys TO posthorn_router;
