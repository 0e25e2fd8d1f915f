-- Who holds a lock that a change of Citus's metadata has to take, in one JSON value: those that have one,
-- the oldest first, then those that wait for one in front of others.
-- $1: nodeids of which the change locks the shards; $2: whether it reads how all tables are defined.
WITH shards AS (
  SELECT s.shardid, t.colocationid,
         -- Citus locks shards of one colocation by their number.
         pg_catalog.row_number() OVER (PARTITION BY s.logicalrelid ORDER BY
           CASE WHEN t.partmethod OPERATOR(pg_catalog.=) 'h' THEN s.shardminvalue::pg_catalog.int8 END)
           OPERATOR(pg_catalog.-) 1 AS number
  FROM pg_catalog.pg_dist_shard s
  JOIN pg_catalog.pg_dist_partition t ON t.logicalrelid OPERATOR(pg_catalog.=) s.logicalrelid
), touched AS (
  SELECT s.*
  FROM shards s
  JOIN pg_catalog.pg_dist_placement p ON p.shardid OPERATOR(pg_catalog.=) s.shardid
  JOIN pg_catalog.pg_dist_node d ON d.groupid OPERATOR(pg_catalog.=) p.groupid
  WHERE d.nodeid OPERATOR(pg_catalog.=) ANY ($1)
), needed AS (
  SELECT l.*
  FROM pg_catalog.pg_locks l
  WHERE l.database OPERATOR(pg_catalog.=) (
      SELECT d.oid FROM pg_catalog.pg_database d
      WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
    AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
    AND CASE l.locktype
      -- Taken in EXCLUSIVE MODE, FOR SHARE of its one row, and for writes and reads.
      WHEN 'relation' THEN CASE
        WHEN l.relation OPERATOR(pg_catalog.=) 'pg_catalog.pg_dist_node'::pg_catalog.regclass::pg_catalog.oid
          THEN l.mode OPERATOR(pg_catalog.<>) 'AccessShareLock'
        WHEN l.relation OPERATOR(pg_catalog.=) 'fleet.control'::pg_catalog.regclass::pg_catalog.oid
          THEN l.mode OPERATOR(pg_catalog.<>) ALL ('{AccessShareLock,RowShareLock}')
        WHEN l.relation OPERATOR(pg_catalog.=) ANY ('{pg_catalog.pg_dist_partition,pg_catalog.pg_dist_shard,pg_catalog.pg_dist_placement,pg_catalog.pg_dist_colocation,pg_catalog.pg_dist_object,pg_catalog.pg_dist_cleanup,pg_catalog.pg_dist_transaction,pg_catalog.pg_dist_local_group,fleet.identities,fleet.removed}'::pg_catalog.regclass[]::pg_catalog.oid[])
          THEN l.mode OPERATOR(pg_catalog.=) ANY ('{ShareLock,ShareRowExclusiveLock,ExclusiveLock,AccessExclusiveLock}')
        ELSE $2 AND l.mode OPERATOR(pg_catalog.=) 'AccessExclusiveLock' AND EXISTS (
          SELECT FROM pg_catalog.pg_dist_partition t
          WHERE t.logicalrelid::pg_catalog.oid OPERATOR(pg_catalog.=) l.relation)
      END
      -- ADV_LOCKTAG_CLASS_CITUS_SHARD_METADATA and …_COLOCATED_SHARDS_METADATA of Citus's resource_lock.h.
      WHEN 'advisory' THEN CASE l.objsubid
        WHEN 4 THEN EXISTS (SELECT FROM touched t
          WHERE t.shardid OPERATOR(pg_catalog.=) ((l.classid::pg_catalog.int8 OPERATOR(pg_catalog.<<) 32)
            OPERATOR(pg_catalog.|) l.objid::pg_catalog.int8))
        WHEN 8 THEN EXISTS (SELECT FROM touched t
          WHERE t.number OPERATOR(pg_catalog.=) l.classid::pg_catalog.int8
            AND t.colocationid::pg_catalog.int8 OPERATOR(pg_catalog.=) l.objid::pg_catalog.int8)
        ELSE false
      END
      ELSE false
    END
), prepared AS (
  -- A prepared transaction has no process: its own lock on its transaction id says which it is.
  SELECT l.virtualtransaction, x.gid, x.owner, x.prepared
  FROM pg_catalog.pg_locks l
  JOIN pg_catalog.pg_prepared_xacts x ON x.transaction OPERATOR(pg_catalog.=) l.transactionid
  WHERE l.pid IS NULL AND l.granted
), holders AS (
  SELECT pg_catalog.bool_or(n.granted) AS has_it, n.pid,
         CASE WHEN n.pid IS NULL THEN n.virtualtransaction END AS prepared
  FROM needed n
  GROUP BY 2, 3
)
SELECT COALESCE(pg_catalog.json_agg(h), '[]')::pg_catalog.text FROM (
  SELECT h.pid, x.gid,
         COALESCE(NULLIF(a.application_name, ''), a.backend_type, '') AS application,
         COALESCE(a.usename, x.owner, '') AS role,
         COALESCE(pg_catalog.date_trunc('second', COALESCE(a.xact_start, x.prepared))::pg_catalog.text, '') AS since,
         h.has_it
  FROM holders h
  LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) h.pid
  LEFT JOIN prepared x ON x.virtualtransaction OPERATOR(pg_catalog.=) h.prepared
  WHERE a.pid IS NOT NULL OR x.gid IS NOT NULL
  ORDER BY h.has_it DESC, COALESCE(a.xact_start, x.prepared)
  LIMIT 3) h
