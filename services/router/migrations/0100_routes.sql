-- migrate:up
CREATE EXTENSION IF NOT EXISTS vector;

-- One row an adapter that was ever activated or deactivated. A deactivated one stays as a tombstone: its
-- revision keeps a late activation from bringing it back.
CREATE TABLE route (
    adapter_id  text PRIMARY KEY,
    family      text NOT NULL,
    domain      text NOT NULL,
    version     text NOT NULL DEFAULT '',
    description text NOT NULL DEFAULT '',
    -- Highest revision of the family at which this adapter was activated or deactivated; -1 is never.
    activated   bigint NOT NULL DEFAULT -1,
    deactivated bigint NOT NULL DEFAULT -1,
    -- Which embedding model made the vectors below: vectors of two models do not compare.
    embedded_by text NOT NULL DEFAULT ''
);

CREATE INDEX route_family ON route (family, activated DESC);

-- What an adapter is recognised by: its description (ordinal 0) and its example prompts.
CREATE TABLE route_text (
    adapter_id text NOT NULL REFERENCES route ON DELETE CASCADE,
    ordinal    int NOT NULL,
    text       text NOT NULL,
    embedding  vector NOT NULL,
    PRIMARY KEY (adapter_id, ordinal)
);

-- The adapter that was activated last speaks for its family, unless it was deactivated after that.
CREATE VIEW live_route AS
SELECT adapter_id, family, domain, version, description, activated AS revision, embedded_by
FROM (SELECT DISTINCT ON (family) * FROM route WHERE activated >= 0 ORDER BY family, activated DESC) AS latest
WHERE activated > deactivated;

-- migrate:down
DROP VIEW live_route;
DROP TABLE route_text;
DROP TABLE route;
