//! Owns the walls between the rooms of `src/`: which room may use which is read from the table in
//! `docs/architecture.md`, what is used from the code. `walls ROOT` prints one offence a line.
//! Must not know a rule that the table does not state, and must not change a file.

use proc_macro2::{Spacing, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

const TABLE: &str = "docs/architecture.md";
/// The folders of the two crates; the inner one is to the outer one a module named `decide`.
const OUTER: &str = "src";
const INNER: &str = "src/decide";

/// Names from the root of a crate down to a module, or to something in it.
type Names = Vec<String>;
type Rooms<'a> = BTreeSet<&'a str>;
/// Which room may use which.
type Allowed<'a> = BTreeMap<&'a str, &'a [String]>;
/// Every module that is a file, and that file.
type Modules = BTreeMap<Names, String>;
type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<ExitCode> {
    let root = std::env::args_os().nth(1).ok_or("usage: walls ROOT")?;
    let (summary, offences) = check(Path::new(&root))?;
    let is_clean = offences.is_empty();
    println!("{}", if is_clean { summary } else { offences.join("\n") });
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What there is, in a line, and the offences.
fn check(root: &Path) -> Outcome<(String, Vec<String>)> {
    let rows = rows(&read(root, TABLE)?);
    let mut files = vec![];
    find_files(root, OUTER, &mut files)?;
    let (mut rooms, mut arrows, mut offences) = (0, 0, vec![]);
    if rows.is_empty() {
        offences.push(format!("{TABLE}: no table with a column `May use` under `## Rooms`"));
    }
    for folder in [OUTER, INNER] {
        let inspected = Crate { root, folder, modules: modules(&files, folder) };
        let allowed = inspected.allowed(&rows, &mut offences);
        let mut done = Rooms::new();
        offences.extend(allowed.keys().find_map(|room| circle(&[room], &allowed, &mut done)));
        rooms += inspected.rooms().len();
        arrows += inspected.check_uses(&allowed, &mut offences)?;
    }
    Ok((format!("{rooms} rooms, {arrows} arrows: all allowed"), offences))
}

fn read(root: &Path, file: &str) -> Outcome<String> {
    fs::read_to_string(root.join(file)).map_err(|e| format!("{file}: {e}").into())
}

fn find_files(root: &Path, folder: &str, files: &mut Vec<String>) -> Outcome<()> {
    for entry in fs::read_dir(root.join(folder)).map_err(|e| format!("{folder}: {e}"))? {
        let path = format!("{folder}/{}", entry?.file_name().to_string_lossy());
        if root.join(&path).is_dir() {
            find_files(root, &path, files)?;
        } else if path.ends_with(".rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Whether a path lies in the inner crate, of which the outer one sees only the root.
fn is_inner(path: &str) -> bool {
    path.strip_prefix("src/decide/").is_some_and(|rest| !["", "lib.rs"].contains(&rest))
}

fn modules(files: &[String], folder: &str) -> Modules {
    let is_here = |file: &&String| match folder {
        OUTER => !is_inner(file),
        _ => file.starts_with("src/decide/"),
    };
    let module = |file: &String| {
        let path = file[folder.len() + 1..].trim_end_matches(".rs");
        let mut names: Names = path.split('/').map(String::from).collect();
        names.pop_if(|name| name == "lib" || name == "mod");
        (names, file.clone())
    };
    files.iter().filter(is_here).map(module).collect()
}

struct Row {
    line: usize,
    path: String,
    may_use: Names,
}

fn rows(text: &str) -> Vec<Row> {
    let mut rows = vec![];
    let (mut is_table, mut column) = (false, None);
    let lines = text.lines().enumerate().skip_while(|(_, line)| line.trim_end() != "## Rooms");
    for (number, line) in lines.skip(1).take_while(|(_, line)| !line.starts_with("## ")) {
        // An escaped bar belongs to a text; which character stands for it is all the same here.
        let line = line.trim().replace("\\|", "/");
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if !is_table {
            column = cells.iter().position(|title| *title == "May use");
        }
        is_table = line.starts_with('|');
        let cell = column.filter(|_| is_table).and_then(|column| cells.get(column));
        let Some(cell) = cell else { continue };
        // Whatever else stands there has to be a room: a remark is refused rather than overlooked.
        let names = cell.split(',').map(|name| name.trim().trim_matches('`'));
        let is_name = |name: &&str| !["", "-", "–", "—", "nothing"].contains(name);
        let may_use: Names = names.filter(is_name).map(String::from).collect();
        // A crate's root declares every room, so it may use every room and is none.
        let is_room = |path: &&str| path.starts_with("src/") && !path.ends_with("/lib.rs");
        let row =
            |path: &str| Row { line: number + 1, path: path.into(), may_use: may_use.clone() };
        rows.extend(cells[1].split('`').filter(is_room).map(row));
    }
    rows
}

/// The first circle in what the table allows that `way` leads into; `done` leads into none.
fn circle<'a>(way: &[&'a str], allowed: &Allowed<'a>, done: &mut Rooms<'a>) -> Option<String> {
    let (here, before) = way.split_last()?;
    if let Some(start) = before.iter().position(|room| room == here) {
        return Some(format!("{}: a circle ({TABLE}, \"Rooms\")", way[start..].join(" -> ")));
    }
    let onward = if done.insert(here) { *allowed.get(here)? } else { &[] };
    onward.iter().find_map(|next| circle(&[way, &[next]].concat(), allowed, done))
}

struct Crate<'a> {
    root: &'a Path,
    folder: &'static str,
    modules: Modules,
}

impl Crate<'_> {
    fn rooms(&self) -> Rooms<'_> {
        self.modules.keys().filter_map(|module| module.first()).map(String::as_str).collect()
    }

    /// What the table allows every room that has a row.
    fn allowed<'r>(&self, rows: &'r [Row], offences: &mut Vec<String>) -> Allowed<'r> {
        let (rooms, folder) = (self.rooms(), self.folder);
        let mut allowed = Allowed::new();
        for row in rows.iter().filter(|row| is_inner(&row.path) == (folder == INNER)) {
            let room = row.path[folder.len() + 1..].trim_end_matches('/').trim_end_matches(".rs");
            let place = format!("{TABLE}:{}: `{}`", row.line, row.path);
            if !self.root.join(&row.path).exists() {
                offences.push(format!("{place} does not exist"));
            } else if !rooms.contains(room) {
                offences.push(format!("{place} is no room"));
            } else if allowed.insert(room, row.may_use.as_slice()).is_some() {
                offences.push(format!("{place} has two rows"));
            }
            for name in row.may_use.iter().filter(|name| !rooms.contains(name.as_str())) {
                offences.push(format!("{place} may use `{name}`, which is no room of {folder}/"));
            }
        }
        for room in rooms.into_iter().filter(|room| !allowed.contains_key(room)) {
            let file = format!("{folder}/{room}.rs");
            let is_file = self.modules.values().any(|known| *known == file);
            let path = if is_file { file } else { format!("{folder}/{room}/") };
            offences.push(format!("{path}: a room without a row ({TABLE}, \"Rooms\")"));
        }
        allowed
    }

    /// Holds the code against the table; returns how many arrows there are between the rooms.
    fn check_uses(&self, allowed: &Allowed, offences: &mut Vec<String>) -> Outcome<usize> {
        let rooms = self.rooms();
        let (mut arrows, mut imports) = (BTreeSet::new(), BTreeSet::new());
        let is_own = |file: &str| self.folder == INNER || !file.starts_with("src/decide/");
        for (module, file) in self.modules.iter().filter(|(_, file)| is_own(file)) {
            let tokens = read(self.root, file)?.parse::<TokenStream>();
            let tokens = tokens.map_err(|e| format!("{file}: {e}"))?;
            let mut code = Code { file: module, used: vec![], brought: BTreeMap::new() };
            code.read(tokens, module);
            let mut forbidden = BTreeSet::new();
            for (line, scope, path) in &code.used {
                let Some(target) = code.resolve(scope, path, &self.modules) else { continue };
                let file = |end| self.modules.get_key_value(&target[..end]);
                let deepest = (0..=target.len()).rev().find_map(file);
                imports.extend(deepest.map(|(imported, _)| (module, imported)));
                // What goes on from a name that `use` has brought in is judged at that `use`.
                let is_whole = ["crate", "super", "self", "decide"].contains(&path[0].as_str());
                let (Some(from), true) = (module.first(), is_whole) else { continue };
                // What lies in the crate's root lies in no room, and would be a way around them.
                let to = target.first().and_then(|name| rooms.get(name.as_str()));
                let to = to.copied().unwrap_or("lib");
                if from == to {
                    continue;
                }
                arrows.insert((from, to));
                if allowed.get(from.as_str()).is_some_and(|open| open.iter().all(|o| o != to)) {
                    forbidden.insert((line, to));
                }
            }
            offences.extend(forbidden.into_iter().map(|(line, to)| {
                format!("{file}:{line}: {} may not use {to} ({TABLE}, \"Rooms\")", module[0])
            }));
        }
        for (one, other) in imports.iter().filter(|(one, other)| one < other) {
            // Tests look into what they test, which may declare helpers for them.
            let is_test = |module: &Names| module.iter().any(|name| name == "tests");
            if imports.contains(&(other, one)) && is_test(one) == is_test(other) {
                let (one, other) = (&self.modules[*one], &self.modules[*other]);
                offences.push(format!("{one} <-> {other}: they import each other"));
            }
        }
        Ok(arrows.len())
    }
}

/// What one file uses. It is read as tokens, because the arguments of a macro are nothing else.
struct Code<'a> {
    file: &'a [String],
    /// The line, the module it is in (inline ones included), and the path that is written there.
    used: Vec<(usize, Names, Names)>,
    /// What `use` has brought into which module under which name.
    brought: BTreeMap<(Names, String), Names>,
}

impl Code<'_> {
    fn read(&mut self, tokens: TokenStream, scope: &[String]) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut rest = tokens.as_slice();
        while let [token, after @ ..] = rest {
            rest = after;
            match (token, after) {
                (TokenTree::Ident(word), [TokenTree::Ident(name), TokenTree::Group(body), ..])
                    if word == "mod" =>
                {
                    self.read(body.stream(), &[scope, &[name.to_string()]].concat());
                    rest = &after[2..];
                }
                // `use<'a>` in a type captures a lifetime and brings nothing in.
                (TokenTree::Ident(word), [next, ..]) if word == "use" && !is(next, '<') => {
                    let end = after.iter().position(|token| is(token, ';'));
                    let (tree, after) = after.split_at(end.unwrap_or(after.len()));
                    self.read_use(tree, &[], scope);
                    rest = after;
                }
                (TokenTree::Ident(word), _) => {
                    let (mut path, mut line) = (vec![word.to_string()], 0);
                    while let [TokenTree::Punct(colon), next, TokenTree::Ident(name), ..] = rest
                        && (colon.as_char(), colon.spacing()) == (':', Spacing::Joint)
                        && is(next, ':')
                    {
                        path.push(name.to_string());
                        line = name.span().start().line;
                        rest = &rest[3..];
                    }
                    // A single word is a name of the module itself, or `pub(crate)`.
                    if path.len() > 1 {
                        self.used.push((line, scope.to_vec(), path));
                    }
                }
                (TokenTree::Group(group), _) => self.read(group.stream(), scope),
                _ => {}
            }
        }
    }

    fn read_use(&mut self, tree: &[TokenTree], before: &[String], scope: &[String]) {
        for branch in tree.split(|token| is(token, ',')) {
            let Some(last) = branch.last() else { continue };
            let is_name = |t: &&TokenTree| matches!(t, TokenTree::Ident(_)) || is(t, '*');
            let names = branch.iter().filter(is_name).map(TokenTree::to_string);
            // `{self, …}` is what stands before the brace.
            let names: Names = names.filter(|n| n != "self" || before.is_empty()).collect();
            let mut path = [before, &names].concat();
            if let TokenTree::Group(group) = last {
                let tree: Vec<TokenTree> = group.stream().into_iter().collect();
                self.read_use(&tree, &path, scope);
                continue;
            }
            let Some(name) = path.last().cloned() else { continue };
            path.truncate(path.iter().position(|word| word == "as").unwrap_or(path.len()));
            // `use ask::ask` names a function like the module that holds it: no step further.
            if path[0] != name {
                self.brought.insert((scope.to_vec(), name), path.clone());
            }
            self.used.push((last.span().start().line, scope.to_vec(), path));
        }
    }

    /// The path from the crate's root; none if it leads out of these two crates.
    fn resolve(&self, scope: &[String], path: &[String], modules: &Modules) -> Option<Names> {
        let is_step = |name: &&String| ["crate", "super", "self"].contains(&name.as_str());
        let steps = path.iter().take_while(is_step).count();
        if steps > 0 {
            let up = path[..steps].iter().filter(|step| *step == "super").count();
            let up = if path[0] == "crate" { scope.len() } else { up };
            return Some([&scope[..scope.len().saturating_sub(up)], &path[steps..]].concat());
        }
        let (first, rest) = path.split_first()?;
        // A name that an inline module does not have comes from around it, by way of `super::*`.
        for scope in (self.file.len()..=scope.len()).rev().map(|end| &scope[..end]) {
            if let Some(whole) = self.brought.get(&(scope.to_vec(), first.clone())) {
                return self.resolve(scope, &[whole, rest].concat(), modules);
            }
            if modules.contains_key(&[scope, &path[..1]].concat()) {
                return Some([scope, path].concat());
            }
        }
        (first == "decide" && modules.contains_key(&path[..1])).then(|| path.to_vec())
    }
}

fn is(token: &TokenTree, sign: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOMS: &str = "## Rooms\n| Room | Owns | May use |\n|-|-|-|\n| `src/error.rs` | | – |
| `src/net/` | a \\| b | `error` |\n| `src/worker/` | | `net`, `decide`, `error` |
| `src/decide/` | | nothing |\n| `docs/` | | all |\n\nInside:\n\n| Room | May use |\n|-|-|
| `src/decide/plan/` | `model` |\n| `src/decide/model.rs` | - |\n## A\n|R|May use|\n|`src/no/`||";

    const CLEAN: &[(&str, &str)] = &[
        (TABLE, ROOMS),
        ("src/lib.rs", "mod error; mod net; mod worker; go!(worker::run, net::ask::ask);"),
        ("src/error.rs", "pub(crate) struct Error;"),
        ("src/net/mod.rs", "pub mod ask; mod dns; pub(super) struct Peer;"),
        ("src/net/ask.rs", "use super::{dns::Dns, Peer}; fn ask() -> crate::error::Error {}"),
        ("src/net/dns.rs", "mod a { use super::super::Peer; }"),
        ("src/worker/mod.rs", "mod tests; use crate::net::{self as n}; fn f() { n::ask::ask(); }"),
        ("src/worker/tests.rs", "use super::*; use ::decide::plan; use crate::worker::run;"),
        ("src/decide/lib.rs", "pub mod plan; pub mod model; pub use crate::plan::Plan;"),
        ("src/decide/model.rs", ""),
        ("src/decide/plan/mod.rs", "use crate::model::*; #[cfg(test)] mod tests; tests::help!();"),
        ("src/decide/plan/tests.rs", "use super::Plan;"),
    ];

    /// Checks the clean tree with these files changed; gives the summary and the offences.
    fn find(changed: &[(&str, &str)]) -> (String, Vec<String>) {
        let root = std::thread::current().name().unwrap().replace(':', "-");
        let root = std::env::temp_dir().join(format!("{root}-{}", std::process::id()));
        for (file, text) in CLEAN.iter().chain(changed) {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), text).unwrap();
        }
        let (summary, offences) = check(&root).unwrap();
        fs::remove_dir_all(root).unwrap();
        let place = " (docs/architecture.md, \"Rooms\")";
        (summary, offences.iter().map(|offence| offence.replace(place, "")).collect())
    }

    #[test]
    fn a_clean_tree() {
        assert_eq!(find(&[]), ("6 rooms, 4 arrows: all allowed".to_string(), vec![]));
    }

    #[test]
    fn uses_that_the_table_does_not_allow() {
        let dns =
            "use crate::{error::Error,\nworker as w}; mod a {\nuse super::super::super::worker; }
            #[x(decide::a)] fn f() -> impl X + use<> { vec![format!(\"\", crate::worker::run())]; }
            use self::super::super::worker::*;\nuse crate::root;";
        let to = ["2 worker", "3 worker", "4 decide", "4 worker", "5 worker", "6 lib"];
        let expected = to.map(|to| to.replace(' ', ": net may not use "));
        let expected = expected.map(|to| format!("src/net/dns.rs:{to}"));
        assert_eq!(find(&[("src/net/dns.rs", dns)]).1, expected);
        let found = find(&[("src/decide/model.rs", "fn f(_: crate::plan::tests::T) {}")]).1;
        assert_eq!(found, ["src/decide/model.rs:1: model may not use plan"]);
    }

    #[test]
    fn rows_and_rooms_that_do_not_match() {
        let rooms = ROOMS.replace("b | `error`", "b | `error`, gone").replace("error.rs", "error/");
        let expected = [
            "docs/architecture.md:4: `src/error/` does not exist",
            "docs/architecture.md:5: `src/net/` may use `gone`, which is no room of src/",
            "src/error.rs: a room without a row",
            "src/decide/x/: a room without a row",
        ];
        assert_eq!(find(&[(TABLE, &rooms), ("src/decide/x/y.rs", "")]).1, expected);
    }

    #[test]
    fn a_circle_in_the_table() {
        let rooms = ROOMS.replace("b | `error`", "b | `error`, `worker`");
        assert_eq!(find(&[(TABLE, &rooms)]).1, ["net -> worker -> net: a circle"]);
    }

    #[test]
    fn files_that_import_each_other() {
        let dns =
            ("src/net/dns.rs", "use crate::net::{self}; mod a { use super::*; net::ask::ask!(); }");
        let found = find(&[dns, ("src/net/mod.rs", "pub mod ask; pub use ask::ask;")]).1;
        let with_ask = |file| format!("src/net/{file}: they import each other");
        assert_eq!(found, ["mod.rs <-> src/net/ask.rs", "ask.rs <-> src/net/dns.rs"].map(with_ask));
    }
}
