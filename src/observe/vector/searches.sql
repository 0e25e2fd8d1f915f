-- Searches that pg_stat_statements has seen in this database, in one JSON value: the relation after FROM, and the
-- operator after ORDER BY. Only what is plainly one search is taken for one: short, of one SELECT with one FROM and
-- one ORDER BY, without comments or joins, by a role that may read the relation. Of all others nothing is said: in
-- what re-ranks the rows of an inner search, the operators would be confused.
SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
  'relation', s.relation::pg_catalog.int8, 'operator', s.operator, 'calls', s.calls)), '[]')::pg_catalog.text
FROM (
  SELECT f.relation, f.operator, pg_catalog.sum(f.calls) AS calls
  FROM (
    SELECT s.calls, s.userid, w.words[2] AS operator, COALESCE(
      pg_catalog.to_regclass(w.words[1])::pg_catalog.oid,
      -- Without a schema it is known if there is only one of the name.
      (SELECT pg_catalog.max(c.oid) FROM pg_catalog.pg_class c
       WHERE c.relname OPERATOR(pg_catalog.=) pg_catalog.lower(w.words[1])
       HAVING pg_catalog.count(*) OPERATOR(pg_catalog.=) 1)) AS relation
    FROM pg_stat_statements(true) s
    CROSS JOIN LATERAL (SELECT pg_catalog.regexp_match(s.query,
      '^\s*SELECT\s.*\sFROM\s+(?:ONLY\s+)?((?:"[^"]+"|\w+)(?:\.(?:"[^"]+"|\w+))?)\s.*\sORDER\s+BY\s[^)]*?(<->|<#>|<=>|<\+>|<~>|<%>)', 'i')
      AS words) w
    WHERE s.dbid OPERATOR(pg_catalog.=) (
        SELECT d.oid FROM pg_catalog.pg_database d
        WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
      AND pg_catalog.length(s.query) OPERATOR(pg_catalog.<) 4000
      AND s.query OPERATOR(pg_catalog.~) '<->|<#>|<=>|<\+>|<~>|<%>'
      AND s.query OPERATOR(pg_catalog.!~) '/\*|--'
      AND s.query OPERATOR(pg_catalog.!~*) '\m(select|from|order)\M.*\m(select|join|with|union)\M'
      AND s.query OPERATOR(pg_catalog.!~*) '\mfrom\M.*\mfrom\M|\morder\M.*\morder\M'
      AND w.words IS NOT NULL) f
  WHERE pg_catalog.has_table_privilege(f.userid, f.relation, 'SELECT')
  GROUP BY 1, 2) s
