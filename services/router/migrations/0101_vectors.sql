-- migrate:up

-- Where the trainer put the vectors of an adapter's prompts: a routing profile of the object store, as an event tells it.
ALTER TABLE route ADD COLUMN profile jsonb;

-- Vectors are searched in memory; here they are kept, one row an adapter and embedding model, so that those of another
-- model can be made while these answer.
CREATE TABLE route_vectors (
    adapter_id  text NOT NULL REFERENCES route ON DELETE CASCADE,
    embedded_by text NOT NULL,
    -- centroids, examples or description: what the vectors are of.
    evidence    text NOT NULL,
    dimension   int NOT NULL CHECK (dimension > 0),
    -- float32, little-endian, row after row.
    vectors     bytea NOT NULL CHECK (octet_length(vectors) % (4 * dimension) = 0),
    -- How near prompts come that no vector is of: cosines, which the threshold is calibrated by.
    nearness    real[] NOT NULL,
    PRIMARY KEY (adapter_id, embedded_by)
);

-- What people said about single queries. `family` NULL: no adapter is to answer it. It is no projection: a rebuild keeps it.
CREATE TABLE correction (
    query_sha256 bytea NOT NULL,
    domain       text NOT NULL,
    query        text NOT NULL,
    family       text,
    taught_by    text NOT NULL,
    taught_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (domain, query_sha256)
);

CREATE INDEX correction_age ON correction (taught_at);

CREATE TABLE correction_vector (
    domain       text NOT NULL,
    query_sha256 bytea NOT NULL,
    embedded_by  text NOT NULL,
    vector       bytea NOT NULL,
    PRIMARY KEY (domain, query_sha256, embedded_by),
    FOREIGN KEY (domain, query_sha256) REFERENCES correction ON DELETE CASCADE
);

-- A release before this one writes its vectors here and finds none of this one's.
ALTER TABLE route_text ALTER COLUMN embedding DROP NOT NULL;

-- Every process keeps the index in memory and hears what changed in it, once the change is committed.
CREATE FUNCTION tell_route() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('route', COALESCE(NEW.family, OLD.family));
    RETURN NULL;
END $$;

CREATE TRIGGER route_changed AFTER INSERT OR UPDATE OR DELETE ON route FOR EACH ROW EXECUTE FUNCTION tell_route();

-- migrate:down
DROP TRIGGER route_changed ON route;
DROP FUNCTION tell_route;
DROP TABLE correction_vector;
DROP TABLE correction;
DROP TABLE route_vectors;
ALTER TABLE route DROP COLUMN profile;
-- The release before embeds anew what another model embedded.
UPDATE route_text SET embedding = '[0]' WHERE embedding IS NULL;
UPDATE route SET embedded_by = '';
ALTER TABLE route_text ALTER COLUMN embedding SET NOT NULL;
