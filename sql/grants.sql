-- Nothing for PUBLIC; pg_monitor may look; changes are for superusers, which the functions check too.

REVOKE ALL ON SCHEMA fleet FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA fleet FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA fleet FROM PUBLIC;
REVOKE ALL ON FUNCTION pg_catalog.citus_autoregister(boolean) FROM PUBLIC;

GRANT USAGE ON SCHEMA fleet TO pg_monitor;
GRANT SELECT ON fleet.workers, fleet.events, fleet.control, fleet.identities, fleet.removed TO pg_monitor;
GRANT SELECT ON fleet.recall_results, fleet.silences TO pg_monitor;
GRANT EXECUTE ON FUNCTION fleet.snapshot(), fleet.status(), fleet.doctor(), fleet.situations() TO pg_monitor;
GRANT SELECT ON fleet.vector_shards, fleet.vector_indexes, fleet.vector_tables, fleet.vector_nodes, fleet.vector_recalls, fleet.vector_findings, fleet.vector_progress TO pg_monitor;
-- It takes SELECT on the table besides.
GRANT EXECUTE ON FUNCTION fleet.vector_recall(regclass, integer, integer, interval) TO pg_monitor;
GRANT EXECUTE ON FUNCTION fleet.vector_rows(text), fleet.vector_health(boolean), fleet.metrics(boolean) TO pg_monitor;
