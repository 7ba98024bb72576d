//! `docs/rfc.md` is made from the citations above the tests: which rule is held where, and which advisory.
//!
//! A citation is a comment above a test function, or a line of its own inside one:
//!
//! ```text
//! // RFC 6455 §5.5.2: a ping is answered at once. §5.5.3: with its own payload.
//! // CVE-2018-1000518: the limit was not applied to what was inflated.
//! ```
//!
//! What no test can hold stands in `docs/rfc-exceptions.txt`, with the reason. After a change:
//! `UPDATE_DOCS=1 cargo test -p taut-proto --test citations`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn the_table_of_rules_and_advisories_is_up_to_date() {
    let path = root().join("docs/rfc.md");
    let rendered = render(&citations(), &exceptions());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &rendered).expect("docs/rfc.md is writable");
    }
    let current = fs::read_to_string(&path).unwrap_or_default();
    if current != rendered {
        let line = current.lines().zip(rendered.lines()).position(|(old, new)| old != new);
        let line = line.unwrap_or_else(|| current.lines().count().min(rendered.lines().count())) + 1;
        panic!(
            "docs/rfc.md does not show what the tests cite, from line {line} on: run \
             `UPDATE_DOCS=1 cargo test -p taut-proto --test citations` and commit the file\n  in the file: {:?}\n  by the tests: {:?}",
            current.lines().nth(line - 1).unwrap_or("(its end)"),
            rendered.lines().nth(line - 1).unwrap_or("(its end)"),
        );
    }
}

#[test]
fn every_section_with_a_duty_has_a_test_or_a_reason() {
    let tested: BTreeSet<_> = citations().into_iter().map(|citation| citation.about).collect();
    let excepted: BTreeSet<_> = exceptions().into_iter().map(|exception| exception.about).collect();
    let missing: Vec<_> = DUTIES
        .iter()
        .flat_map(|(rfc, sections)| sections.split(", ").map(move |section| format!("RFC {rfc} §{section}")))
        .filter(|section| !tested.contains(section) && !excepted.contains(section))
        .collect();
    assert!(missing.is_empty(), "no test cites {missing:?}: cite them above a test, or say why in {EXCEPTIONS}");
}

#[test]
fn every_advisory_has_a_test_or_a_reason() {
    let tested: BTreeSet<_> = citations().into_iter().map(|citation| citation.about).collect();
    let excepted: BTreeSet<_> = exceptions().into_iter().map(|exception| exception.about).collect();
    let missing: Vec<_> = ADVISORIES.iter().filter(|id| !tested.contains(**id) && !excepted.contains(**id)).collect();
    assert!(missing.is_empty(), "no test cites {missing:?}: cite them above a test, or say why in {EXCEPTIONS}");
    let both: Vec<_> = excepted.iter().filter(|id| !id.starts_with("RFC ") && tested.contains(*id)).collect();
    assert!(both.is_empty(), "{both:?} have a test by now: take them out of {EXCEPTIONS}");
}

#[test]
fn citations_are_read_as_they_are_written() {
    let source = "\
// RFC 6455 §5.5.2: a ping is answered. §5.5.3: with its own payload (§7.1.4 says more);
// and goes on. CVE-2025-10148: one key; GHSA-w67g-5rqw-f597: another.
// RFC 6455 §5.4, §5.5: both at once.
#[cfg(unix)]
#[test]
fn a_test() {
    let x = 1; // RFC 6455 §1.1: not a line of its own
    // RFC 7692 §7.2.3.4: inside a test.
}
// RFC 6455 §9.9: above a helper.
fn helper() {}
// Prose about RFC 6455 §9.8: not a citation.
#[test]
fn another() {}
";
    let mut found = Vec::new();
    read(source, "x.rs", &mut found);
    let found: Vec<_> = found.iter().map(|c| format!("{}|{}|{}", c.about, c.rule, c.test)).collect();
    let expected = [
        "RFC 6455 §5.5.2|a ping is answered|x.rs::a_test",
        "RFC 6455 §5.5.3|with its own payload (§7.1.4 says more); and goes on|x.rs::a_test",
        "CVE-2025-10148|one key|x.rs::a_test",
        "GHSA-w67g-5rqw-f597|another|x.rs::a_test",
        "RFC 6455 §5.4|both at once|x.rs::a_test",
        "RFC 6455 §5.5|both at once|x.rs::a_test",
        "RFC 7692 §7.2.3.4|inside a test|x.rs::a_test",
    ];
    assert_eq!(found, expected);
}

/// One rule or advisory, and the test that holds it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Citation {
    /// `RFC 6455 §5.5.2` or the advisory's name.
    about: String,
    rule: String,
    /// `file::name`.
    test: String,
}

/// A rule or advisory that no test here holds.
struct Exception {
    about: String,
    rule: String,
    reason: String,
}

/// Every citation in the sources and tests of all crates.
fn citations() -> Vec<Citation> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root().join("crates")).expect("crates/") {
        let entry = entry.expect("readable").path();
        for folder in ["src", "tests"] {
            collect(&entry.join(folder), &mut files);
        }
    }
    files.sort();
    let mut found = Vec::new();
    for file in files.iter().filter(|file| !file.ends_with("citations.rs")) {
        let name = file.strip_prefix(root().join("crates")).expect("below crates/").display().to_string();
        // `crates/taut-proto/tests/receive.rs` is `taut-proto/tests/receive.rs`.
        read(&fs::read_to_string(file).expect("readable"), &name.replace('\\', "/"), &mut found);
    }
    assert!(found.len() > 100, "the citations were not found");
    found
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Reads the citations of one file: comments directly above a test, and lines inside it.
fn read(source: &str, file: &str, found: &mut Vec<Citation>) {
    let mut above: Vec<&str> = Vec::new();
    let mut is_test = false;
    // The test we are in, and the indentation at which it ends.
    let mut inside: Option<(String, usize)> = None;
    for line in source.lines() {
        let code = line.trim_start();
        let indentation = line.len() - code.len();
        if let Some((test, end)) = &inside {
            match code.strip_prefix("// ") {
                Some(comment) if starts_with_citation(comment) => split(comment, test, found),
                _ if code == "}" && indentation == *end => inside = None,
                _ => {}
            }
            continue;
        }
        if let Some(comment) = code.strip_prefix("// ") {
            above.push(comment);
            continue;
        }
        if code.starts_with("#[") {
            is_test |= code == "#[test]";
            continue;
        }
        let name = code.strip_prefix("fn ").and_then(|rest| rest.split(['(', '<']).next());
        if let Some(name) = name.filter(|_| is_test) {
            let test = format!("{file}::{name}");
            let mut block = String::new();
            for comment in &above {
                if starts_with_citation(comment) && !block.is_empty() {
                    split(&block, &test, found);
                    block.clear();
                }
                let _ = write!(block, "{}{comment}", if block.is_empty() { "" } else { " " });
            }
            split(&block, &test, found);
            if !code.ends_with('}') {
                inside = Some((test, indentation));
            }
        }
        above.clear();
        is_test = false;
    }
}

/// Splits a comment into its citations: each begins the comment, a sentence or a clause with names and a colon.
fn split(comment: &str, test: &str, found: &mut Vec<Citation>) {
    let mut rfc = None;
    let mut current: Option<(Vec<String>, usize)> = None;
    let mut at = 0;
    while at <= comment.len() {
        let begins = at == 0 || [". ", "; "].iter().any(|end| comment[..at].ends_with(end));
        if let Some((names, length)) = begins.then(|| names(&comment[at..], &mut rfc)).flatten() {
            add(current.take(), comment, at, test, found);
            at += length;
            current = Some((names, at));
        } else {
            at += comment[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    add(current, comment, comment.len(), test, found);
}

fn add(names: Option<(Vec<String>, usize)>, comment: &str, end: usize, test: &str, found: &mut Vec<Citation>) {
    let Some((names, start)) = names else { return };
    let rule = comment[start..end].trim().trim_end_matches(['.', ';']).to_owned();
    for about in names {
        found.push(Citation { about, rule: rule.clone(), test: test.to_owned() });
    }
}

fn starts_with_citation(comment: &str) -> bool {
    names(comment, &mut None).is_some()
}

/// The names before a colon, if that is all there is before it, and the length with the colon. `rfc` is the RFC that
/// a bare section belongs to.
fn names(text: &str, rfc: &mut Option<String>) -> Option<(Vec<String>, usize)> {
    let end = text.find(": ")?;
    let mut last = rfc.clone();
    let mut names = Vec::new();
    for name in text[..end].split(", ") {
        if let Some((number, section)) = name.strip_prefix("RFC ").and_then(|rest| rest.split_once(" §")) {
            last = Some(number.to_owned());
            names.push(section_name(number, section)?);
        } else if let Some(section) = name.strip_prefix('§') {
            names.push(section_name(last.as_ref()?, section)?);
        } else if is_advisory(name) {
            names.push(name.to_owned());
        } else {
            return None;
        }
    }
    *rfc = last;
    Some((names, end + 1))
}

/// `5.5.2`, `4.2.1 (3)` or `4.1 response (3)`.
fn section_name(rfc: &str, section: &str) -> Option<String> {
    let number = section.split(' ').next()?;
    let is_number = number.starts_with(|first: char| first.is_ascii_digit())
        && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    (is_number && section.len() < 24).then(|| format!("RFC {rfc} §{section}"))
}

/// An advisory by its number, or a change of a named project: `ws commit a2f4e7c0`, `Bun issue 23832`.
fn is_advisory(name: &str) -> bool {
    let words: Vec<_> = name.split(' ').collect();
    match words[..] {
        [id] => ["CVE-", "GHSA-", "GO-", "PYSEC-", "RUSTSEC-"].iter().any(|prefix| id.starts_with(prefix)),
        [_, "issue" | "commit" | "release", _] | ["GHSA", _, _] => true,
        _ => false,
    }
}

fn exceptions() -> Vec<Exception> {
    let text = fs::read_to_string(root().join(EXCEPTIONS)).expect(EXCEPTIONS);
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| {
            let fields: Vec<_> = line.split(" | ").map(str::trim).collect();
            match fields[..] {
                [about, rule, reason] => {
                    Exception { about: about.to_owned(), rule: rule.to_owned(), reason: reason.to_owned() }
                }
                _ => panic!("{EXCEPTIONS}:{}: not `section or advisory | rule or kind | reason`", number + 1),
            }
        })
        .collect()
}

fn render(citations: &[Citation], exceptions: &[Exception]) -> String {
    let mut rows: BTreeMap<(Order, String), BTreeSet<String>> = BTreeMap::new();
    for citation in citations {
        rows.entry((Order::of(&citation.about), citation.rule.clone()))
            .or_default()
            .insert(format!("`{}`", citation.test));
    }
    for exception in exceptions {
        rows.entry((Order::of(&exception.about), exception.rule.clone())).or_default().insert(exception.reason.clone());
    }
    let is_rule = |order: &Order| order.name.starts_with("RFC ");
    let rules = rows.iter().filter(|((order, _), _)| is_rule(order));
    let mut out = String::from(HEAD);
    let mut rfc = String::new();
    for ((order, rule), tests) in rules {
        let number = order.name.split(" §").next().unwrap_or_default();
        if rfc != number {
            number.clone_into(&mut rfc);
            let _ = write!(out, "\n## {rfc}\n\n| section | rule | held by |\n|---|---|---|\n");
        }
        let section = order.name.split(" §").nth(1).unwrap_or_default();
        let _ = writeln!(out, "| §{section} | {} | {} |", escape(rule), join(tests));
    }
    out.push_str(ADVISORIES_HEAD);
    for ((order, rule), tests) in rows.iter().filter(|((order, _), _)| !is_rule(order)) {
        let _ = writeln!(out, "| {} | {} | {} |", order.name, escape(rule), join(tests));
    }
    out
}

fn join(tests: &BTreeSet<String>) -> String {
    tests.iter().map(|test| escape(test)).collect::<Vec<_>>().join("<br>")
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Sorts names as people do: §5.10 after §5.9, (10) after (9).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    key: Vec<(u64, String)>,
    name: String,
}

impl Order {
    fn of(name: &str) -> Self {
        let mut key = Vec::new();
        let mut rest = name;
        while !rest.is_empty() {
            let text = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let (before, after) = rest.split_at(text);
            let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            let (number, after) = after.split_at(digits);
            key.push((0, before.to_owned()));
            key.push((number.parse().unwrap_or(0), String::new()));
            rest = after;
        }
        Self { key, name: name.to_owned() }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

const EXCEPTIONS: &str = "docs/rfc-exceptions.txt";

const HEAD: &str = "\
# What the RFCs demand, and which test holds it

Made by `crates/taut-proto/tests/citations.rs` from the comments above the tests and from `rfc-exceptions.txt`; do not
edit. `UPDATE_DOCS=1 cargo test -p taut-proto --test citations` makes it anew.

The first table goes through RFC 6455 (The WebSocket Protocol) and RFC 7692 (Compression Extensions), in our words.
`driver` marks what the code without I/O cannot hold by itself; the second table lists the advisories of other
implementations against which this one is tested.
";

const ADVISORIES_HEAD: &str = "
## Advisories and known bugs of others

| advisory | what went wrong | held by |
|---|---|---|
";

/// The sections that put a duty on an endpoint, RFC 6455 §4 to §8 and RFC 7692 §5 to §7.
const DUTIES: [(&str, &str); 8] = [
    (
        "6455",
        "4.1, 4.1 (1), 4.1 (2), 4.1 (3), 4.1 (4), 4.1 (5), 4.1 (6), 4.1 (7), 4.1 (8), 4.1 (9), 4.1 (10), 4.1 (11), \
         4.1 (12)",
    ),
    (
        "6455",
        "4.1 response (1), 4.1 response (2), 4.1 response (3), 4.1 response (4), 4.1 response (5), 4.1 response (6)",
    ),
    (
        "6455",
        "4.2.1, 4.2.1 (1), 4.2.1 (2), 4.2.1 (3), 4.2.1 (4), 4.2.1 (5), 4.2.1 (6), 4.2.1 (7), 4.2.1 (8), 4.2.1 (9), \
         4.2.1 (10)",
    ),
    (
        "6455",
        "4.2.2, 4.2.2 (1), 4.2.2 (4), 4.2.2 (5.1), 4.2.2 (5.2), 4.2.2 (5.3), 4.2.2 (5.4), 4.2.2 (5.5), 4.2.2 (5.6), \
         4.3, 4.4",
    ),
    ("6455", "5.1, 5.2, 5.3, 5.4, 5.5, 5.5.1, 5.5.2, 5.5.3, 5.6, 5.8, 6.1, 6.2"),
    ("6455", "7.1.1, 7.1.2, 7.1.3, 7.1.4, 7.1.5, 7.1.6, 7.1.7, 7.2.1, 7.2.2, 7.2.3, 7.3, 7.4.1, 7.4.2, 8.1"),
    ("7692", "5, 6, 6.1, 6.2, 7.1, 7.1.1.1, 7.1.1.2, 7.1.2.1, 7.1.2.2, 7.2.1, 7.2.2"),
    ("7692", "7.2.3.1, 7.2.3.2, 7.2.3.3, 7.2.3.4, 7.2.3.5, 7.2.3.6"),
];

/// What is known of other implementations.
const ADVISORIES: [&str; 75] = [
    "Bun issue 23832",
    "Bun issue 35526",
    "CVE-2016-10518",
    "CVE-2016-10542",
    "CVE-2016-10544",
    "CVE-2017-16031",
    "CVE-2018-1000518",
    "CVE-2018-1270",
    "CVE-2018-21035",
    "CVE-2020-11050",
    "CVE-2020-13935",
    "CVE-2020-14368",
    "CVE-2020-27813",
    "CVE-2020-35896",
    "CVE-2020-7662",
    "CVE-2021-32640",
    "CVE-2021-33880",
    "CVE-2022-35922",
    "CVE-2023-43669",
    "CVE-2024-37890",
    "CVE-2025-10148",
    "CVE-2025-11677",
    "CVE-2025-11678",
    "CVE-2025-1866",
    "CVE-2026-11586",
    "CVE-2026-12151",
    "CVE-2026-123817",
    "CVE-2026-1526",
    "CVE-2026-1527",
    "CVE-2026-1528",
    "CVE-2026-19773",
    "CVE-2026-2229",
    "CVE-2026-27571",
    "CVE-2026-44211",
    "CVE-2026-48779",
    "CVE-2026-50161",
    "CVE-2026-54274",
    "CVE-2026-54463",
    "CVE-2026-54464",
    "CVE-2026-54465",
    "CVE-2026-54466",
    "CVE-2026-59390",
    "CVE-2026-59881",
    "CVE-2026-61666",
    "CVE-2026-62389",
    "CVE-2026-69243",
    "CVE-2026-9675",
    "GHSA ws 3.3.1",
    "GHSA-4mp9-239f-g9hg",
    "GHSA-6663-c963-2gqg",
    "GHSA-9fm3-97px-rjf6",
    "GHSA-frjg-g767-7363",
    "GHSA-m9rr-h88h-h8w6",
    "GHSA-w67g-5rqw-f597",
    "GHSA-x8v2-478q-2hvg",
    "GO-2020-0019",
    "PYSEC-2026-2108",
    "PYSEC-2026-4389",
    "PYSEC-2026-4395",
    "RUSTSEC-2020-0043",
    "RUSTSEC-2022-0035",
    "RUSTSEC-2023-0034",
    "RUSTSEC-2023-0063",
    "RUSTSEC-2023-0065",
    "RUSTSEC-2024-0003",
    "RUSTSEC-2024-0332",
    "RUSTSEC-2024-0373",
    "RUSTSEC-2026-0037",
    "RUSTSEC-2026-0185",
    "RUSTSEC-2026-0258",
    "facil.io issue 169",
    "wireshark issue 21190",
    "ws commit a2f4e7c0",
    "ws release 8.20.1",
    "ws release 8.23.0",
];
