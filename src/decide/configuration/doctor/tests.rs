//! Owns what holds of the checks: each can fail, and a healthy node passes all.

use super::*;

fn healthy() -> Configuration {
    Configuration {
        shared_preload_libraries: "citus, citus_fleet".into(),
        library_version: "0.1.0".into(),
        citus: Some(CitusSettings {
            own_host: Some("10.0.0.1".into()),
            local_hostname: "localhost".into(),
            node_conninfo: "sslmode=verify-full".into(),
            output_plugin_libraries: Some("pgoutput, citus".into()),
            ..CitusSettings::default()
        }),
        listen_addresses: "*".into(),
        ssl: true,
        wal_level: "logical".into(),
        max_prepared_transactions: 200,
        extensions: vec![("citus".into(), "13.2-1".into(), "13.2-1".into())],
        sources: "worker".into(),
        workers: vec![("w1".into(), Some("13.2-1".into()), None)],
        ..Configuration::default()
    }
}

fn worst(facts: &Configuration, check: &str) -> Severity {
    examine(facts)
        .into_iter()
        .filter(|finding| finding.check == check)
        .map(|finding| finding.status)
        .max_by_key(|status| *status as u8)
        .unwrap()
}

#[test]
fn an_endpoint_for_everybody_is_a_warning_and_one_for_nobody_an_error() {
    let served = |listen: &str, token| {
        let at = Some(HttpFacts { listen: listen.parse().unwrap(), token });
        http(&Configuration { http: at, ..Configuration::default() }).status
    };
    assert_eq!(served("127.0.0.1:9187", Token::NotAsked), Severity::Ok);
    assert_eq!(served("[::1]:9187", Token::NotAsked), Severity::Ok);
    assert_eq!(served("0.0.0.0:9187", Token::NotAsked), Severity::Warning);
    assert_eq!(served("10.0.0.1:9187", Token::Asked), Severity::Ok);
    assert_eq!(served("127.0.0.1:9187", Token::Unusable), Severity::Error);
    assert_eq!(http(&Configuration::default()).status, Severity::Ok);
}

#[test]
fn a_healthy_node_has_nothing_but_ok() {
    let complaints: Vec<_> =
        examine(&healthy()).into_iter().filter(|f| f.status != Severity::Ok).collect();
    assert_eq!(complaints, vec![]);
}

#[test]
fn every_check_can_fail() {
    type Harm = fn(&mut Configuration);
    let cases: [(&str, Severity, Harm); 22] = [
        ("shared_preload_libraries", Severity::Error, |f| {
            f.shared_preload_libraries = "citus".into()
        }),
        ("shared_preload_libraries", Severity::Error, |f| {
            f.shared_preload_libraries = "citus_fleet,citus".into()
        }),
        ("shared_preload_libraries", Severity::Error, |f| {
            f.shared_preload_libraries = "citus_fleet".into()
        }),
        ("controller", Severity::Error, |f| f.controller = Some("no".into())),
        ("citus", Severity::Warning, |f| f.citus = None),
        ("coordinator_host", Severity::Error, |f| {
            f.citus.as_mut().unwrap().own_host = Some("localhost".into())
        }),
        ("coordinator_host", Severity::Error, |f| {
            let citus = f.citus.as_mut().unwrap();
            citus.coordinator_host_setting = "c".into();
            citus.coordinator_host_complaint = Some(("elsewhere".into(), "".into()));
        }),
        ("coordinator_host", Severity::Warning, |f| f.citus.as_mut().unwrap().own_host = None),
        ("citus.local_hostname", Severity::Error, |f| f.listen_addresses = "10.0.0.1".into()),
        ("sslmode", Severity::Warning, |f| {
            f.citus.as_mut().unwrap().node_conninfo = "sslmode=require".into()
        }),
        ("sslmode", Severity::Warning, |f| f.citus.as_mut().unwrap().node_conninfo = String::new()),
        ("max_prepared_transactions", Severity::Error, |f| f.max_prepared_transactions = 0),
        ("wal_level", Severity::Warning, |f| f.wal_level = "replica".into()),
        ("output_plugin_libraries", Severity::Warning, |f| {
            let approved = Some("pgoutput, test_decoding".into());
            f.citus.as_mut().unwrap().output_plugin_libraries = approved;
        }),
        ("citus_fleet.allowed_networks", Severity::Warning, |f| f.allows_every_network = true),
        ("citus_fleet.unbound_passwords", Severity::Warning, |f| f.unbound_passwords = true),
        ("extension version", Severity::Warning, |f| f.extensions[0].2 = "14".into()),
        ("version skew", Severity::Error, |f| f.workers[0].1 = Some("13.1-1".into())),
        ("citus_fleet.workers", Severity::Error, |f| f.dns.push("SERVFAIL".into())),
        ("changes", Severity::Error, |f| f.failures.push("lock timeout".into())),
        ("controller", Severity::Error, |f| f.stalled_for = Some(61)),
        ("citus_fleet.workers", Severity::Warning, |f| f.unresolved_sources.push("worker".into())),
    ];
    for (check, status, change) in cases {
        let mut facts = healthy();
        change(&mut facts);
        assert_eq!(worst(&facts, check), status, "{check}");
    }
}

#[test]
fn a_required_certificate_needs_ssl_here() {
    let mut facts = healthy();
    facts.ssl = false;
    facts.citus.as_mut().unwrap().node_conninfo = "sslmode=require".into();
    assert_eq!(worst(&facts, "sslmode"), Severity::Error);
}
