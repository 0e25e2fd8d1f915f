-- What new sessions of this database start with, in one JSON value: as it is, and as it would be.
-- $1: the setting; $2: its new value for the database, NULL to reset it.
-- Roles and sessions with values of their own are not looked at.
SELECT pg_catalog.json_build_object(
  'before', COALESCE(own.value, beneath.value),
  'after', COALESCE($2, beneath.value))::pg_catalog.text
FROM (
  SELECT (
    SELECT o.option_value
    FROM pg_catalog.pg_db_role_setting s
    JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) s.setdatabase
    CROSS JOIN LATERAL pg_catalog.pg_options_to_table(s.setconfig) o
    WHERE s.setrole OPERATOR(pg_catalog.=) 0::pg_catalog.oid
      AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
      AND pg_catalog.lower(o.option_name) OPERATOR(pg_catalog.=) $1) AS value
) AS own, (
  SELECT COALESCE(
    (SELECT o.option_value
     FROM pg_catalog.pg_db_role_setting s
     CROSS JOIN LATERAL pg_catalog.pg_options_to_table(s.setconfig) o
     WHERE s.setrole OPERATOR(pg_catalog.=) 0::pg_catalog.oid
       AND s.setdatabase OPERATOR(pg_catalog.=) 0::pg_catalog.oid
       AND pg_catalog.lower(o.option_name) OPERATOR(pg_catalog.=) $1),
    (SELECT f.setting
     FROM pg_catalog.pg_file_settings f
     WHERE pg_catalog.lower(f.name) OPERATOR(pg_catalog.=) $1 AND f.applied
     ORDER BY f.seqno DESC LIMIT 1),
    (SELECT pg_catalog.concat(p.boot_val, p.unit)
     FROM pg_catalog.pg_settings p
     WHERE p.name OPERATOR(pg_catalog.=) $1)) AS value
) AS beneath
