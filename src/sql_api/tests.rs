//! Owns the tests that run inside one server: what needs no second one, no Citus and no controller's
//! answer. Everything else is in the crate `tests/`.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    /// Runs a statement that must fail, and returns its SQLSTATE and its DETAIL or HINT.
    fn failure(statement: &str) -> (PgSqlErrorCode, String) {
        PgTryBuilder::new(|| {
            Spi::run(statement).expect("the statement is valid SQL");
            panic!("{statement} succeeded")
        })
        .catch_others(|cause| match cause {
            pg_sys::panic::CaughtError::PostgresError(report)
            | pg_sys::panic::CaughtError::ErrorReport(report) => {
                let words = report.detail().or(report.hint()).unwrap_or_default();
                (report.sql_error_code(), words.to_owned())
            }
            other => panic!("{statement} failed otherwise: {other:?}"),
        })
        .execute()
    }

    #[pg_test]
    fn without_citus_a_pass_is_refused_with_a_hint() {
        let (sqlstate, words) = failure("SELECT citus_autoregister()");
        assert_eq!(sqlstate, PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE);
        assert!(words.contains("CREATE EXTENSION citus"), "{words}");
    }

    #[pg_test]
    fn a_grant_of_execute_does_not_make_a_superuser() {
        Spi::run(
            "CREATE ROLE granted;
             GRANT pg_monitor TO granted;
             GRANT EXECUTE ON FUNCTION citus_autoregister(boolean), fleet.pause() TO granted;
             SET LOCAL ROLE granted",
        )
        .unwrap();
        for statement in ["SELECT citus_autoregister()", "SELECT fleet.pause()"] {
            let (sqlstate, words) = failure(statement);
            assert_eq!(sqlstate, PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, "{statement}");
            assert!(words.contains("superuser"), "{words}");
        }
    }

    #[pg_test]
    fn pausing_twice_is_one_change() {
        let changed = || {
            Spi::get_one::<TimestampWithTimeZone>("SELECT changed_at FROM fleet.control").unwrap()
        };
        Spi::run("UPDATE fleet.control SET changed_at = '2000-01-01 UTC'").unwrap();
        Spi::run("SELECT fleet.resume()").unwrap();
        let before = changed();
        Spi::run("SELECT fleet.pause()").unwrap();
        assert_ne!(before, changed());
        assert_eq!(Spi::get_one::<bool>("SELECT paused FROM fleet.control"), Ok(Some(true)));
    }

    #[pg_test]
    fn there_is_one_row_of_control() {
        let rows = || {
            let row = "SELECT string_agg(paused::text, ' ') FROM fleet.control";
            Spi::get_one::<String>(row).unwrap().unwrap_or_default()
        };
        assert_eq!(rows(), "false");
        // As a restored dump does: CREATE EXTENSION has put a row there already.
        Spi::run("INSERT INTO fleet.control (paused) VALUES (true)").unwrap();
        assert_eq!(rows(), "true");
        let (sqlstate, _) = failure("UPDATE fleet.control SET singleton = false");
        assert_eq!(sqlstate, PgSqlErrorCode::ERRCODE_CHECK_VIOLATION);
    }

    #[pg_test]
    fn the_doctor_knows_the_version_of_the_library() {
        let finding: Option<String> = Spi::get_one(
            "SELECT status FROM fleet.doctor()
             WHERE \"check\" = 'extension version' AND finding LIKE 'citus_fleet %'",
        )
        .unwrap();
        assert_eq!(finding.as_deref(), Some("ok"));
        Spi::run("UPDATE pg_extension SET extversion = '0.0.1' WHERE extname = 'citus_fleet'")
            .unwrap();
        let finding: Option<String> = Spi::get_one(
            "SELECT status FROM fleet.doctor()
             WHERE \"check\" = 'extension version' AND finding LIKE 'citus_fleet %'",
        )
        .unwrap();
        assert_eq!(finding.as_deref(), Some("error"));
    }
}
