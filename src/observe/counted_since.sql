-- A reset of any table's statistics is noted with its database (pgstat_reset), and a crash with what is counted
-- for the whole server (pgstat_reset_after_failure).
SELECT EXTRACT(epoch FROM GREATEST(
  pg_catalog.pg_stat_get_bgwriter_stat_reset_time(),
  (SELECT pg_catalog.pg_stat_get_db_stat_reset_time(d.oid) FROM pg_catalog.pg_database d
   WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())))::pg_catalog.float8
