//! Owns the checks of whether a column can be searched by an index: none there, or none possible as it is.
//! Must not look into an index, nor offer one that cannot be built.

use super::nodes::rounded;
use crate::condition::Condition;
use crate::node::literal;
use crate::search::vector::finding::{Evidence, Finding, Remedy};
use crate::search::vector::fleet::{Fleet, Placement, Table, quote};
use crate::search::vector::model::{Column, Index, Relation};

/// Whether the placement is large enough to need an index.
pub fn is_large(fleet: &Fleet<'_>, relation: &Relation) -> bool {
    relation.rows() >= fleet.thresholds.index_min_rows
}

/// The most dimensions that hnsw and ivfflat take.
fn most_dimensions(kind: &str) -> Option<i32> {
    match kind {
        "vector" => Some(2_000),
        "halfvec" => Some(4_000),
        _ => None,
    }
}

/// hnsw takes so many elements other than zero of a sparsevec (HNSW_MAX_NNZ of pgvector).
const MOST_ELEMENTS: u32 = 1_000;

/// Why no hnsw index can be built on a column as it is.
enum Obstacle {
    /// Its table is of another access method than heap, such as columnar.
    AccessMethod,
    NoDimensions,
    TooManyDimensions,
}

fn obstacle(table: &Table<'_>, column: &Column) -> Option<Obstacle> {
    if !table.shell.is_heap() {
        Some(Obstacle::AccessMethod)
    } else if column.dimensions <= 0 {
        Some(Obstacle::NoDimensions)
    } else if most_dimensions(&column.kind).is_some_and(|most| column.dimensions > most) {
        Some(Obstacle::TooManyDimensions)
    } else {
        None
    }
}

/// Whether an index can be built on a column as it is.
pub fn is_indexable(table: &Table<'_>, column: &Column) -> bool {
    obstacle(table, column).is_none()
}

/// Whether searches find their rows by an index of another kind, as those of one tenant do: then they read
/// few, and are exact.
fn is_found_otherwise(relation: &Relation) -> bool {
    relation.rows_fetched > relation.rows_read && relation.rows_fetched as f64 >= relation.rows()
}

/// Partial indexes that together hold fewer of the rows leave most searches without one.
const FEW: f64 = 0.5;

pub fn partial(fleet: &Fleet<'_>) -> Vec<Finding> {
    let columns =
        fleet.tables.iter().flat_map(|table| table.shell.columns.iter().map(move |c| (table, c)));
    columns.filter_map(|(table, column)| partial_on(fleet, table, column)).collect()
}

/// The partial indexes of a column, where it has no others that searches can use.
fn partial_on(fleet: &Fleet<'_>, table: &Table<'_>, column: &Column) -> Option<Finding> {
    let shells: Vec<&Index> = table.shell.indexes.iter().filter(|it| covers(it, column)).collect();
    let is_usable = |shell: &&&Index| {
        let there = table.counterparts(shell);
        !there.is_empty() && there.iter().all(|index| index.valid)
    };
    let usable: Vec<&Index> = shells.iter().filter(is_usable).copied().collect();
    if usable.is_empty() || usable.iter().any(|shell| !shell.partial) {
        return None;
    }
    // What they hold of the rows that there are to hold; ANALYZE counts the rows that a predicate lets in.
    let share = |placement: &Placement<'_>| {
        let relation = placement.relation.filter(|relation| is_large(fleet, relation))?;
        let held = usable.iter().filter_map(|shell| placement.counterpart(shell));
        let held = held.map(|index| index.reltuples).collect::<Vec<f64>>();
        let is_known = held.iter().all(|rows| *rows >= 0.0);
        let all = relation.filled_rows(usable[0]);
        is_known.then(|| held.iter().sum::<f64>() / all)
    };
    let share = table.placements.iter().filter_map(share).reduce(f64::max)?;
    let names: Vec<&str> = usable.iter().map(|shell| shell.quoted.as_str()).collect();
    (share < FEW).then(|| Finding {
        status: Condition::Yellow,
        subject: table.subject_of_index(usable[0]),
        symptom: format!(
            "all indexes of {} of {} are partial, and hold {:.0} % of its rows at the most: {}",
            column.quoted,
            table.name,
            share * 100.0,
            names.join(", ")
        ),
        evidence: Evidence::estimated("rows in the indexes per row", rounded(share), FEW),
        remedy: is_indexable(table, column).then(|| create(fleet, table, column)),
    })
}

fn covers(index: &Index, column: &Column) -> bool {
    index.columns.contains(&column.name)
}

pub fn missing(fleet: &Fleet<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in &fleet.tables {
        for column in table.shell.columns.iter().filter(|it| obstacle(table, it).is_none()) {
            findings.extend(missing_on(fleet, table, column));
        }
    }
    findings
}

fn missing_on(fleet: &Fleet<'_>, table: &Table<'_>, column: &Column) -> Vec<Finding> {
    let known: Vec<(&Placement<'_>, &Relation)> =
        table.placements.iter().filter_map(|p| Some((p, p.relation?))).collect();
    let lacking: Vec<&(&Placement<'_>, &Relation)> = known
        .iter()
        .filter(|(_, relation)| !relation.indexes.iter().any(|index| covers(index, column)))
        .collect();
    let everywhere = lacking.len() == known.len();
    let mut large = lacking.iter().filter(|(_, relation)| is_large(fleet, relation)).peekable();
    if everywhere && large.peek().is_none() {
        return Vec::new();
    }
    let is_exact = everywhere && large.all(|(_, relation)| is_found_otherwise(relation));
    let finding = |&&(placement, relation): &&(&Placement<'_>, &Relation)| {
        let remedy = match everywhere {
            true => Some(create(fleet, table, column)),
            false => recreate(fleet, table, column, placement, relation),
        };
        let node = &fleet.node(placement).address;
        Finding {
            status: match everywhere {
                true if is_exact => Condition::Green,
                false if is_large(fleet, relation) => Condition::Red,
                _ => Condition::Yellow,
            },
            subject: fleet.subject(table, placement),
            symptom: match everywhere {
                true => format!("column {} of {} has no vector index", column.quoted, table.name),
                false => format!(
                    "{} on {node} has no vector index on {}, as other shards of {} have",
                    relation.quoted, column.quoted, table.name
                ),
            },
            evidence: Evidence::estimated(
                "rows",
                relation.rows().round(),
                fleet.thresholds.index_min_rows,
            ),
            remedy,
        }
    };
    lacking.iter().map(finding).collect()
}

/// A new index on the whole table. pgvector's first operator class stands in for the one that the
/// queries need, which nobody but their author knows.
fn create(fleet: &Fleet<'_>, table: &Table<'_>, column: &Column) -> Remedy {
    create_for(fleet, table, column, "l2_ops")
}

/// A new index on the whole table, of an operator class that is given without the type in front.
pub fn create_for(fleet: &Fleet<'_>, table: &Table<'_>, column: &Column, class: &str) -> Remedy {
    let class = operator_class(fleet, &column.kind, class);
    let key = match column.is_domain {
        // Access methods do not look behind a domain.
        true => format!(
            "({}::{}.{}({}))",
            column.quoted,
            vector_schema(fleet),
            column.kind,
            column.dimensions
        ),
        false => column.quoted.clone(),
    };
    let create = format!("CREATE INDEX CONCURRENTLY ON {} USING hnsw ({key} {class})", table.name);
    if column.kind != "sparsevec" {
        return Remedy::on_coordinator(create);
    }
    // A build that fails leaves an invalid index behind, and only the rows tell whether it would.
    let (name, quoted) = (table.name, &column.quoted);
    let body = format!(
        "BEGIN IF EXISTS (SELECT 1 FROM {name} WHERE pg_catalog.regexp_count({quoted}::pg_catalog.text, ':') \
         > {MOST_ELEMENTS}) THEN RAISE 'a row has more than {MOST_ELEMENTS} elements other than zero: \
         no hnsw index can hold it'; END IF; END"
    );
    Remedy::on_coordinator(format!("DO {}", literal(&body))).then(create)
}

fn operator_class(fleet: &Fleet<'_>, kind: &str, class: &str) -> String {
    format!("{}.{kind}_{class}", vector_schema(fleet))
}

fn vector_schema<'f>(fleet: &'f Fleet<'_>) -> &'f str {
    let evidence = fleet.coordinator().1.answer;
    evidence.ok().and_then(|evidence| evidence.vector_schema.as_deref()).unwrap_or("public")
}

/// The index that this shard lacks, under the name by which Citus will look for it.
fn recreate(
    fleet: &Fleet<'_>,
    table: &Table<'_>,
    column: &Column,
    placement: &Placement<'_>,
    relation: &Relation,
) -> Option<Remedy> {
    let placed = placement.indexes.iter().find(|p| covers(p.shell, column) && p.index.is_none())?;
    let definition = placed.shell.definition.as_ref().or_else(|| {
        // The shell is locked; another shard has the same.
        let mut twins = table.placements.iter().filter_map(|p| p.counterpart(placed.shell));
        twins.find_map(|twin| twin.definition.as_ref())
    })?;
    Some(fleet.on_node_of(
        placement,
        format!(
            "CREATE INDEX CONCURRENTLY {} ON {} USING {definition}",
            quote(placed.name),
            relation.quoted
        ),
    ))
}

pub fn not_indexable(fleet: &Fleet<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in &fleet.tables {
        let large = table.placements.iter().filter_map(|p| p.relation).any(|r| is_large(fleet, r));
        let is_bare = |column: &&Column| !table.shell.indexes.iter().any(|it| covers(it, column));
        for column in table.shell.columns.iter().filter(|column| large && is_bare(column)) {
            if let Some(obstacle) = obstacle(table, column) {
                findings.push(obstructed(fleet, table, column, &obstacle));
            }
        }
    }
    findings
}

fn obstructed(
    fleet: &Fleet<'_>,
    table: &Table<'_>,
    column: &Column,
    obstacle: &Obstacle,
) -> Finding {
    let (name, quoted, dimensions) = (table.name, &column.quoted, column.dimensions);
    let most = most_dimensions(&column.kind);
    let (status, symptom, remedy) = match obstacle {
        // It was chosen for what columnar is good at.
        Obstacle::AccessMethod => (
            Condition::Green,
            format!(
                "{name} is {}, on which no vector index can be built",
                table.shell.access_method
            ),
            None,
        ),
        Obstacle::NoDimensions => (
            Condition::Yellow,
            format!("column {quoted} of {name} declares no dimensions"),
            declare_dimensions(fleet, table, column),
        ),
        Obstacle::TooManyDimensions => (
            Condition::Yellow,
            format!(
                "column {quoted} of {name} has {dimensions} dimensions, more than an index of {} takes",
                column.kind
            ),
            Some(narrow(fleet, table, column)),
        ),
    };
    Finding {
        status,
        subject: table.subject(),
        symptom,
        evidence: Evidence::exact("declared dimensions", dimensions, most),
        remedy,
    }
}

/// The dimensions are in the data, which only the operator may read. Where the type of the column comes from
/// elsewhere, it cannot be changed here: a view's query, a domain, a parent that is no partitioned table.
fn declare_dimensions(fleet: &Fleet<'_>, table: &Table<'_>, column: &Column) -> Option<Remedy> {
    let root = table.shell.root.as_deref();
    if table.shell.materialized || column.is_domain || (column.is_inherited && root.is_none()) {
        return None;
    }
    let (name, quoted, schema) = (root.unwrap_or(table.name), &column.quoted, vector_schema(fleet));
    let dimensions = match column.kind.as_str() {
        "sparsevec" => format!("pg_catalog.split_part({quoted}::pg_catalog.text, '/', 2)"),
        _ => format!("{schema}.vector_dims({quoted})"),
    };
    let body = format!(
        "BEGIN EXECUTE pg_catalog.format('ALTER TABLE %s ALTER COLUMN %s TYPE {schema}.{kind}(%s)', \
         {table}, {column}, (SELECT {dimensions} FROM {name} WHERE {quoted} IS NOT NULL LIMIT 1)); END",
        kind = column.kind,
        table = literal(name),
        column = literal(quoted),
    );
    Some(Remedy::on_coordinator(format!("DO {}", literal(&body))))
}

/// An index on a narrower form of a column of too many dimensions.
fn narrow(fleet: &Fleet<'_>, table: &Table<'_>, column: &Column) -> Remedy {
    let (quoted, d, schema) = (&column.quoted, column.dimensions, vector_schema(fleet));
    let key = match column.kind.as_str() {
        "vector" if d <= 4_000 => {
            format!(
                "({quoted}::{schema}.halfvec({d})) {}",
                operator_class(fleet, "halfvec", "l2_ops")
            )
        }
        _ => format!(
            "({schema}.binary_quantize({quoted})::bit({d})) {}",
            operator_class(fleet, "bit", "hamming_ops")
        ),
    };
    Remedy::on_coordinator(format!(
        "CREATE INDEX CONCURRENTLY ON {} USING hnsw ({key})",
        table.name
    ))
}
