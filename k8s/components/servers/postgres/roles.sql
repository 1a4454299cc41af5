-- Database, vector extension, and a role and schema for each service that stores, closed to the others. Idempotent.
-- Run by psql as a superuser of the server; the passwords come from the environment:
--   REGISTRY_PASSWORD=… TRAINER_PASSWORD=… EVALUATOR_PASSWORD=… ROUTER_PASSWORD=… psql -d postgres -f roles.sql
\set ON_ERROR_STOP on
\set QUIET on
\getenv registry REGISTRY_PASSWORD
\getenv trainer TRAINER_PASSWORD
\getenv evaluator EVALUATOR_PASSWORD
\getenv router ROUTER_PASSWORD

SELECT 'CREATE DATABASE lorafleet' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'lorafleet') \gexec
\connect lorafleet
SET client_min_messages = warning; -- what is there already is no news
REVOKE ALL ON DATABASE lorafleet FROM PUBLIC;
CREATE EXTENSION IF NOT EXISTS vector SCHEMA public;

CREATE TEMPORARY TABLE service (name text, password text);
INSERT INTO service VALUES
  ('registry', :'registry'), ('trainer', :'trainer'), ('evaluator', :'evaluator'), ('router', :'router');

SELECT format('CREATE ROLE %I LOGIN', name) FROM service
  WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
SELECT format('ALTER ROLE %I PASSWORD %L', name, password) FROM service \gexec
SELECT format('ALTER ROLE %I SET search_path = %I, public', name, name) FROM service \gexec
SELECT format('GRANT CONNECT ON DATABASE lorafleet TO %I', name) FROM service \gexec
-- A managed server's administrator is no superuser: it may make a schema only for a role it belongs to.
SELECT format('GRANT %I TO CURRENT_USER', name) FROM service \gexec
SELECT format('CREATE SCHEMA IF NOT EXISTS %I AUTHORIZATION %I', name, name) FROM service \gexec
