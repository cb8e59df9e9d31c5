-- Run once, by the entrypoint of Postgres' image: a role for each service that keeps something. It can create its own
-- schema, and see nothing of the other's.
\set authserver_password `cat /run/chatelaine/secrets/authserver/password`
\set tokenbroker_password `cat /run/chatelaine/secrets/tokenbroker/password`
REVOKE ALL ON SCHEMA public FROM PUBLIC;
CREATE ROLE authserver LOGIN PASSWORD :'authserver_password';
CREATE ROLE tokenbroker LOGIN PASSWORD :'tokenbroker_password';
GRANT CONNECT, CREATE ON DATABASE chatelaine TO authserver, tokenbroker;
