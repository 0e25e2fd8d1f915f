-- Who holds a lock, and has for a while, that taking Citus's metadata from this worker has to take, in one
-- JSON value: the tables of the cluster are dropped there.
WITH prepared AS (
  SELECT l.virtualtransaction, x.gid, x.owner, x.prepared
  FROM pg_catalog.pg_locks l
  JOIN pg_catalog.pg_prepared_xacts x ON x.transaction OPERATOR(pg_catalog.=) l.transactionid
  WHERE l.pid IS NULL AND l.granted
)
SELECT COALESCE(pg_catalog.json_agg(h), '[]')::pg_catalog.text FROM (
  SELECT l.pid, x.gid,
         COALESCE(NULLIF(pg_catalog.min(a.application_name), ''), pg_catalog.min(a.backend_type), '') AS application,
         COALESCE(pg_catalog.min(a.usename), pg_catalog.min(x.owner), '') AS role,
         pg_catalog.date_trunc('second', pg_catalog.min(COALESCE(a.xact_start, x.prepared)))::pg_catalog.text AS since
  FROM pg_catalog.pg_locks l
  LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) l.pid
  LEFT JOIN prepared x ON l.pid IS NULL
    AND x.virtualtransaction OPERATOR(pg_catalog.=) l.virtualtransaction
  WHERE l.granted AND l.locktype OPERATOR(pg_catalog.=) 'relation'
    AND l.database OPERATOR(pg_catalog.=) (
      SELECT d.oid FROM pg_catalog.pg_database d
      WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
    AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
    AND COALESCE(a.xact_start, x.prepared)
        OPERATOR(pg_catalog.<) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) '1 s'::pg_catalog.interval)
    AND (l.relation OPERATOR(pg_catalog.=) ANY (SELECT t.logicalrelid::pg_catalog.oid FROM pg_catalog.pg_dist_partition t)
      OR (l.relation OPERATOR(pg_catalog.=) ANY ('{pg_catalog.pg_dist_node,pg_catalog.pg_dist_partition,pg_catalog.pg_dist_shard,pg_catalog.pg_dist_placement,pg_catalog.pg_dist_colocation,pg_catalog.pg_dist_object,pg_catalog.pg_dist_local_group}'::pg_catalog.regclass[]::pg_catalog.oid[])
        AND l.mode OPERATOR(pg_catalog.=) ANY ('{ShareLock,ShareRowExclusiveLock,ExclusiveLock,AccessExclusiveLock}')))
  GROUP BY l.pid, x.gid
  ORDER BY 5
  LIMIT 3) h
