# shellcheck shell=bash
# How a Citus database travels: what pg_dump says of it on the coordinator, and beside that how its tables
# are distributed, which pg_dump does not know. Sourced by backup, restore and migrate-from-compose, which
# pass a function that runs a program beside the coordinator, with PGUSER and PGDATABASE set.
# A dump is a directory: roles.sql, schema.sql, distribution.sql, data.sql.gz, indexes.sql, counts.tsv.

here() { in_coordinator env PGUSER=postgres "PGDATABASE=$DATABASE" "$@"; }

# The extensions' own tables (nodes, identities, events) belong to the cluster, not to its data.
EXCLUDE=(--exclude-extension=citus --exclude-extension=citus_columnar --exclude-extension=citus_fleet
    --exclude-schema=fleet --exclude-schema=columnar --exclude-schema='citus*'
    --exclude-schema=cron --exclude-schema=metric_helpers --exclude-schema=user_management --exclude-schema=zmon_utils
    --exclude-table=public.postgres_log --exclude-table='public.postgres_log_*' --exclude-table='public.failed_authentication_*')

# Spilo makes this server for its log tables in every cluster, and pg_dump has no option to leave one out.
without_spilos_server() { sed -E '/^(CREATE|ALTER) SERVER pglog .*;$/d'; }

# counts END: schema, table and exact number of rows of every table that users own; partitions count in
# their parent.
counts() {
    "$1" psql -XqAt -F $'\t' -v ON_ERROR_STOP=1 <<'SQL'
SET client_min_messages = warning;
SELECT pg_catalog.format('SELECT %L, %L, pg_catalog.count(*) FROM %I.%I', n.nspname, c.relname, n.nspname, c.relname)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
   AND n.nspname !~ '^(pg_|information_schema$|citus|columnar|fleet$|cron$|metric_helpers$|user_management$|zmon_utils$)'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_dist_shard s WHERE c.relname = pg_catalog.format('%s_%s', (SELECT p.relname FROM pg_catalog.pg_class p WHERE p.oid = s.logicalrelid), s.shardid))
   AND c.relname !~ '^(postgres_log|pg_auth_mon)' ORDER BY 1
\gexec
SQL
}

# distribution END: the statements that distribute the tables as they are distributed there. Tables of one
# colocation group are put together again; partitions follow their parent.
distribution() {
    "$1" psql -XqAt -v ON_ERROR_STOP=1 <<'SQL'
-- Citus creates this view in either of these schemas.
SET search_path = pg_catalog, public;
WITH tables AS (
    SELECT t.table_name, t.citus_table_type AS kind, t.distribution_column, t.colocation_id, t.shard_count,
           pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
           pg_catalog.row_number() OVER (PARTITION BY t.colocation_id, t.citus_table_type ORDER BY n.nspname, c.relname) AS place,
           pg_catalog.first_value(pg_catalog.format('%I.%I', n.nspname, c.relname))
               OVER (PARTITION BY t.colocation_id, t.citus_table_type ORDER BY n.nspname, c.relname) AS leader
      FROM citus_tables t
      JOIN pg_catalog.pg_class c ON c.oid = t.table_name
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE NOT c.relispartition)
SELECT CASE
    WHEN kind = 'reference' THEN pg_catalog.format('SELECT pg_catalog.create_reference_table(%L);', name)
    WHEN kind = 'local' THEN pg_catalog.format('SELECT pg_catalog.citus_add_local_table_to_metadata(%L);', name)
    WHEN kind = 'distributed' AND distribution_column = '<none>' THEN
        pg_catalog.format('SELECT pg_catalog.create_distributed_table(%L, NULL, colocate_with => %L);', name,
            CASE place WHEN 1 THEN 'none' ELSE leader END)
    WHEN kind = 'distributed' AND place = 1 THEN
        pg_catalog.format('SELECT pg_catalog.create_distributed_table(%L, %L, shard_count => %s, colocate_with => ''none'');',
            name, distribution_column, shard_count)
    WHEN kind = 'distributed' THEN
        pg_catalog.format('SELECT pg_catalog.create_distributed_table(%L, %L, colocate_with => %L);', name, distribution_column, leader)
    ELSE pg_catalog.format('DO $$BEGIN RAISE EXCEPTION ''%% is distributed as %%, which this script does not know'', %L, %L; END$$;', name, kind)
    END
  FROM tables ORDER BY kind = 'distributed', colocation_id, place;
SQL
}

# dump END DIRECTORY: nothing is left behind when a part of it fails.
dump() {
    local end=$1 directory=$2
    mkdir -p "$directory"
    "$end" pg_dumpall --roles-only --no-role-passwords >"$directory/roles.sql"
    "$end" pg_dump --section=pre-data "${EXCLUDE[@]}" | without_spilos_server >"$directory/schema.sql"
    distribution "$end" >"$directory/distribution.sql"
    "$end" pg_dump --section=data "${EXCLUDE[@]}" | gzip >"$directory/data.sql.gz"
    "$end" pg_dump --section=post-data "${EXCLUDE[@]}" >"$directory/indexes.sql"
    counts "$end" >"$directory/counts.tsv"
}

# run END: statements from standard input; the first that fails ends it.
run() { "$1" psql -Xq -o /dev/null -v ON_ERROR_STOP=1; }

# load END DIRECTORY: tables are distributed while they are empty, filled, and indexed last.
load() {
    local end=$1 directory=$2 existing
    existing=$(counts "$end" | wc -l)
    ((existing == 0)) || fail "the database already has $existing tables" "Restore into an empty one, so that nothing is mixed or overwritten."
    # Roles that are there already, of the system or of an earlier attempt, are no error.
    "$end" psql -Xq <"$directory/roles.sql" >/dev/null 2>&1 || true
    run "$end" <"$directory/schema.sql" || fail "the tables could not be made"
    run "$end" <"$directory/distribution.sql" || fail "the tables could not be distributed"
    gunzip -c "$directory/data.sql.gz" | run "$end" || fail "the rows could not be loaded"
    { printf "SET maintenance_work_mem = '512MB';\n" && cat "$directory/indexes.sql"; } | run "$end" || fail "indexes and constraints could not be made"
}

# compare END DIRECTORY: every table has as many rows as when it was dumped.
compare() {
    local differences
    differences=$(diff "$2/counts.tsv" <(counts "$1") || true)
    [[ -z $differences ]] || fail "rows differ ('<' is the dump, '>' is here; schema, table, rows)" "$differences"
    say "  $(wc -l <"$2/counts.tsv") tables, $(awk -F '\t' '{ rows += $3 } END { print rows + 0 }' "$2/counts.tsv") rows: the same at both ends"
}
