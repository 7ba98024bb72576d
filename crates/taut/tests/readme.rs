//! What README and the crate's first page tell a newcomer to write. That the programs compile is seen by the tests of the
//! documentation.

use std::path::Path;

const README: &str = include_str!("../../../README.md");
const FIRST_PAGE: &str = include_str!("../src/lib.rs");

/// The blocks of a language on a page; of a crate's page without the comment signs.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in page.lines() {
        let line = line.strip_prefix("//!").map_or(line, |line| line.strip_prefix(' ').unwrap_or(line));
        match (&mut block, line.strip_prefix("```")) {
            (None, Some(tag)) if tag == language => block = Some(String::new()),
            (Some(_), Some(_)) => blocks.extend(block.take()),
            (Some(block), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, _) => {}
        }
    }
    blocks
}

#[test]
fn both_pages_show_the_same_dependencies_and_these_lead_to_the_library() {
    // The server's configuration is TOML as well.
    let of =
        |page| blocks(page, "toml").into_iter().filter(|block| block.contains("[dependencies]")).collect::<Vec<_>>();
    let dependencies = of(README);
    assert_eq!(dependencies.len(), 1);
    assert_eq!(dependencies, of(FIRST_PAGE));
    let path = dependencies[0].split("path = \"../taut/").nth(1).and_then(|rest| rest.split('"').next());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path.expect("a path")).join("Cargo.toml");
    assert!(std::fs::read_to_string(manifest).unwrap().contains("name = \"taut\"\n"));
}

#[test]
fn what_both_pages_show_are_whole_programs() {
    for (page, programs) in [(README, blocks(README, "rust,no_run")), (FIRST_PAGE, blocks(FIRST_PAGE, "no_run"))] {
        assert!(programs.len() >= 2, "{page}");
        for program in programs {
            assert!(program.contains("#[tokio::main]\nasync fn main() -> Result<(), Error> {"), "{program}");
        }
    }
}
