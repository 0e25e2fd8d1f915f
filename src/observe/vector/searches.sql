-- Searches that pg_stat_statements has seen in this database, in one JSON value: the operator that follows
-- ORDER BY, and the relation that follows the first FROM, with its schema, as Citus writes shards.
SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
  'relation', s.relation::pg_catalog.int8, 'operator', s.operator, 'calls', s.calls)), '[]')::pg_catalog.text
FROM (
  SELECT COALESCE(
      pg_catalog.to_regclass(f.relation)::pg_catalog.oid,
      -- Without a schema it is known if there is only one of the name.
      (SELECT pg_catalog.max(c.oid) FROM pg_catalog.pg_class c
       WHERE c.relname OPERATOR(pg_catalog.=) pg_catalog.lower(f.relation)
       HAVING pg_catalog.count(*) OPERATOR(pg_catalog.=) 1)) AS relation,
    f.operator, pg_catalog.sum(f.calls) AS calls
  FROM (
    SELECT s.calls, w.words[1] AS relation, w.words[2] AS operator
    FROM pg_stat_statements(true) s
    CROSS JOIN LATERAL (SELECT pg_catalog.regexp_match(s.query,
      'FROM\s+(?:ONLY\s+)?((?:"[^"]+"|\w+)(?:\.(?:"[^"]+"|\w+))?).*ORDER\s+BY\s.*?(<->|<#>|<=>|<\+>|<~>|<%>)', 'i')
      AS words) w
    WHERE s.dbid OPERATOR(pg_catalog.=) (
        SELECT d.oid FROM pg_catalog.pg_database d
        WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
      AND s.query OPERATOR(pg_catalog.~) '<->|<#>|<=>|<\+>|<~>|<%>'
      AND w.words IS NOT NULL) f
  GROUP BY 1, 2) s
WHERE s.relation IS NOT NULL
