//! Owns the checks of settings that searches go by: whether they are the same on every node and for every
//! role, and whether the planner may use an index at all. Must not judge a value by itself.

use super::nodes::compared;
use crate::condition::Condition;
use crate::node::literal;
use crate::search::options::is_of_search;
use crate::search::vector::finding::{Concern, Evidence, Finding, Remedy};
use crate::search::vector::fleet::Fleet;
use crate::search::vector::model::{NodeEvidence, RoleSetting};
use crate::search::vector::nodes::FleetNode;
use std::collections::BTreeMap;

const INDEX_SCANS: &str = "enable_indexscan";

pub fn drift(fleet: &Fleet<'_>) -> Vec<Finding> {
    let set = |name: &str, value: &str| {
        let (name, value) = (literal(name), literal(value));
        Remedy::on_coordinator(format!("SELECT fleet.set_search_option({name}, {value})"))
    };
    let mut findings = Vec::new();
    for (node, theirs, ours) in compared(fleet) {
        for (name, setting) in ours.settings.iter().filter(|(name, _)| is_of_search(name)) {
            let Some(found) = theirs.settings.get(name).filter(|s| s.value != setting.value) else {
                continue;
            };
            findings.push(Finding {
                status: Condition::Yellow,
                subject: node.subject(),
                symptom: format!(
                    "{name} is {} on {}, and {} on the coordinator",
                    found.value, node.address, setting.value
                ),
                evidence: Evidence::exact("setting", found.value.as_str(), setting.value.as_str()),
                remedy: Some(set(name, &setting.value)),
            });
        }
    }
    let sharded = fleet.tables.iter().any(|table| table.sharded);
    let (_, node) = fleet.coordinator();
    let Some(ours) = node.answer.ok().filter(|_| sharded) else { return findings };
    let settings = &ours.settings;
    if settings.get("citus.propagate_set_commands").is_some_and(|s| s.session == "local") {
        return findings;
    }
    for (name, setting) in settings.iter().filter(|(n, s)| is_of_search(n) && s.session != s.value)
    {
        findings.push(Finding {
            status: Condition::Yellow,
            subject: node.subject(),
            symptom: format!(
                "this session has {name} = {}, which the workers do not get: they use their own",
                setting.session
            ),
            evidence: Evidence::exact("setting", setting.session.as_str(), setting.value.as_str()),
            remedy: Some(Remedy::on_coordinator(format!("RESET {name}")).then(format!(
                "SELECT fleet.set_search_option({}, {})",
                literal(name),
                literal(&setting.session)
            ))),
        });
    }
    findings
}

/// Nodes that have a setting for a role.
type Holders<'f> = Vec<(&'f FleetNode<'f>, &'f NodeEvidence)>;

/// The settings of single roles, each with the nodes that have it; and how many nodes there are to have it.
fn of_roles<'f>(fleet: &'f Fleet<'_>) -> (BTreeMap<&'f RoleSetting, Holders<'f>>, usize) {
    let mut holders: BTreeMap<&RoleSetting, Holders<'_>> = BTreeMap::new();
    let mut nodes = 0;
    for node in &fleet.nodes {
        let Ok(evidence) = node.answer else { continue };
        nodes += 1;
        for setting in &evidence.role_settings {
            holders.entry(setting).or_default().push((node, evidence));
        }
    }
    (holders, nodes)
}

/// What resets it: on the coordinator, from where Citus takes it to all nodes, or on each node that has it.
fn reset(setting: &RoleSetting, holders: &Holders<'_>, nodes: usize) -> Vec<(Concern, Remedy)> {
    let RoleSetting { role, in_database, name, .. } = setting;
    let statement = |database: &str| match in_database {
        true => format!("ALTER ROLE {role} IN DATABASE {database} RESET {name}"),
        false => format!("ALTER ROLE {role} RESET {name}"),
    };
    let coordinator = holders.iter().find(|(node, _)| node.is_coordinator());
    if let Some((_, evidence)) = coordinator.filter(|_| holders.len() == nodes) {
        return vec![(Concern::default(), Remedy::on_coordinator(statement(&evidence.database)))];
    }
    let alone = |(node, evidence): &(&FleetNode<'_>, &NodeEvidence)| {
        let remedy = node.remedy("SET citus.enable_alter_role_set_propagation = off");
        (node.subject(), remedy.then(statement(&evidence.database)))
    };
    holders.iter().map(alone).collect()
}

/// Whether a boolean setting, as it was typed, is off (PostgreSQL's `parse_bool`).
fn is_off(value: &str) -> bool {
    let value = value.trim().to_ascii_lowercase();
    let is_begin = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
    value == "0" || is_begin("false", 1) || is_begin("no", 1) || is_begin("off", 2)
}

/// Whether two values are the same, however they were typed.
fn is_same(one: &str, other: &str) -> bool {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    number(one).is_some_and(|one| number(other) == Some(one)) || one.eq_ignore_ascii_case(other)
}

/// Whether searches with the one value look less far than with the other; nothing where that cannot be told.
fn is_less(name: &str, value: &str, than: &str) -> Option<bool> {
    if name.ends_with(".iterative_scan") {
        return Some(is_off(value) && !is_off(than));
    }
    let number = |text: &str| text.parse::<f64>().ok();
    Some(number(value)? < number(than)?)
}

pub fn roles(fleet: &Fleet<'_>) -> Vec<Finding> {
    let (of_roles, nodes) = of_roles(fleet);
    let mut findings = Vec::new();
    for (setting, holders) in of_roles.iter().filter(|(setting, _)| setting.name != INDEX_SCANS) {
        let RoleSetting { role, name, value, .. } = setting;
        let usual = holders.iter().find_map(|(_, evidence)| evidence.settings.get(name));
        let Some(usual) = usual.filter(|usual| !is_same(&usual.value, value)) else { continue };
        let is_less = is_less(name, value, &usual.value) == Some(true);
        findings.extend(reset(setting, holders, nodes).into_iter().map(|(subject, remedy)| {
            Finding {
                status: if is_less { Condition::Yellow } else { Condition::Green },
                symptom: format!(
                    "role {role} searches with {name} = {value}, others with {}",
                    usual.value
                ),
                subject,
                evidence: Evidence::exact("setting", value.as_str(), usual.value.as_str()),
                remedy: Some(remedy),
            }
        }));
    }
    findings
}

pub fn index_scans(fleet: &Fleet<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for node in &fleet.nodes {
        let Ok(evidence) = node.answer else { continue };
        let Some(setting) = evidence.settings.get(INDEX_SCANS).filter(|it| is_off(&it.value))
        else {
            continue;
        };
        findings.push(Finding {
            status: Condition::Yellow,
            subject: node.subject(),
            symptom: format!("{INDEX_SCANS} is off on {}", node.address),
            evidence: Evidence::exact("setting", "off", "on"),
            remedy: match setting.source.as_str() {
                "database" => Some(
                    node.remedy("SET citus.enable_ddl_propagation = off")
                        .then(format!("ALTER DATABASE {} RESET {INDEX_SCANS}", evidence.database)),
                ),
                "configuration file" | "default" => Some(
                    node.remedy(format!("ALTER SYSTEM SET {INDEX_SCANS} = on"))
                        .then("SELECT pg_catalog.pg_reload_conf()"),
                ),
                _ => None,
            },
        });
    }
    let (of_roles, nodes) = of_roles(fleet);
    for (setting, holders) in
        of_roles.iter().filter(|(s, _)| s.name == INDEX_SCANS && is_off(&s.value))
    {
        findings.extend(reset(setting, holders, nodes).into_iter().map(|(subject, remedy)| {
            Finding {
                status: Condition::Yellow,
                symptom: format!("role {} searches with {INDEX_SCANS} = off", setting.role),
                subject,
                evidence: Evidence::exact("setting", "off", "on"),
                remedy: Some(remedy),
            }
        }));
    }
    findings
}
