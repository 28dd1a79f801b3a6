#!/bin/sh
# Run once, when the server's data is made, and after registry.sql: the registry's database gets an owner of its own.
set -eu
psql --username "$POSTGRES_USER" --dbname registry --set ON_ERROR_STOP=1 \
     --set password="$(cat /credentials/registry.password)" <<'SQL'
CREATE ROLE registry LOGIN PASSWORD :'password';
ALTER DATABASE registry OWNER TO registry;
REVOKE ALL ON DATABASE registry FROM PUBLIC;
SQL
