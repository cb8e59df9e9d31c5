# Run once, by the image's entrypoint, in an empty database: a role for each service that keeps
# something. Each can create and so own its schema, and nothing else.
for role in authserver tokenbroker; do
  password=$(cat "/run/secrets/postgres/$role")
  psql -v ON_ERROR_STOP=1 -v role="$role" -v password="$password" -v database="$POSTGRES_DB" \
    -U "$POSTGRES_USER" -d "$POSTGRES_DB" <<'SQL'
REVOKE ALL ON SCHEMA public FROM PUBLIC;
CREATE ROLE :"role" LOGIN PASSWORD :'password';
GRANT CONNECT, CREATE ON DATABASE :"database" TO :"role";
SQL
done
