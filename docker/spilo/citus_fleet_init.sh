#!/usr/bin/env bash
# What a Citus node needs besides Spilo's own: the extensions, and the superuser's password where Citus
# looks for it when it connects to other nodes. Called at the end of Spilo's post_init.sh: at the
# bootstrap, and at every promotion, so that a password that was changed is followed.
# Usage: citus_fleet_init.sh CONNECTION (as Patroni and on_role_change.sh give it to post_init.sh)
set -euo pipefail

# Patroni hides the environment from what it runs; its configuration, which only this user reads, has it.
: "${PATRONI_CONFIGURATION:=$(getent passwd postgres | cut -d: -f6)/postgres.yml}"
superuser() {
    python3 - "$PATRONI_CONFIGURATION" "$1" <<'PYTHON'
import sys, yaml
with open(sys.argv[1]) as configuration:
    print(yaml.safe_load(configuration)["postgresql"]["authentication"]["superuser"][sys.argv[2]], end="")
PYTHON
}

# These statements concern this server alone: on a worker, a propagated CREATE EXTENSION would be refused,
# and waiting for a standby that does not exist yet would hold up the bootstrap.
export PGOPTIONS="-c citus.enable_ddl_propagation=off -c synchronous_commit=local -c search_path=pg_catalog -c client_min_messages=warning"
CITUS_USER=$(superuser username)
CITUS_PASSWORD=$(superuser password)
export CITUS_USER CITUS_PASSWORD
psql -XqAt -v ON_ERROR_STOP=1 -o /dev/null -d "$1" <<'SQL'
-- The statements below contain the password.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
CREATE EXTENSION IF NOT EXISTS citus;
CREATE EXTENSION IF NOT EXISTS vector SCHEMA public;
CREATE EXTENSION IF NOT EXISTS citus_fleet;
\getenv name CITUS_USER
\getenv password CITUS_PASSWORD
-- 0 stands for every other node, -1 for this one. Spelled as a libpq connection string.
INSERT INTO pg_catalog.pg_dist_authinfo (nodeid, rolename, authinfo)
SELECT node, :'name', pg_catalog.concat('password=''',
           pg_catalog.replace(pg_catalog.replace(:'password', '\', '\\'), '''', '\'''), '''')
  FROM pg_catalog.unnest(ARRAY[0, -1]) AS node
    ON CONFLICT (nodeid, rolename) DO UPDATE SET authinfo = EXCLUDED.authinfo
 WHERE pg_dist_authinfo.authinfo IS DISTINCT FROM EXCLUDED.authinfo;
SQL
