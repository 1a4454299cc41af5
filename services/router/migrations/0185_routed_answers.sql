-- migrate:up

-- Recorded answers that `auto` routed, and feedback that one was routed wrongly: one row an answer, whichever comes
-- first. It has no text.
CREATE TABLE routed_answer (
    generation_id  text PRIMARY KEY,
    domain         text NOT NULL DEFAULT '',
    -- Of the last user turn; NULL until the answer is here.
    query_sha256   bytea,
    routed_wrongly boolean NOT NULL DEFAULT false,
    -- Empty with routed_wrongly: no adapter of the domain.
    right_family   text NOT NULL DEFAULT '',
    given_by       text NOT NULL DEFAULT '',
    -- Its person is erased: nothing of it is taken any more.
    forgotten      boolean NOT NULL DEFAULT false,
    kept_at        timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX routed_answer_age ON routed_answer (kept_at);

CREATE TABLE routed_answer_vector (
    generation_id text NOT NULL REFERENCES routed_answer ON DELETE CASCADE,
    embedded_by   text NOT NULL,
    -- float32, little-endian.
    vector        bytea NOT NULL,
    PRIMARY KEY (generation_id, embedded_by)
);

-- The answer whose feedback made it; empty where it was taught by hand. Then alone `query` has a text.
ALTER TABLE correction ADD COLUMN generation_id text NOT NULL DEFAULT '';
CREATE INDEX correction_generation ON correction (generation_id) WHERE generation_id <> '';

-- migrate:down
DELETE FROM correction WHERE generation_id <> '';
ALTER TABLE correction DROP COLUMN generation_id;
DROP TABLE routed_answer_vector;
DROP TABLE routed_answer;
