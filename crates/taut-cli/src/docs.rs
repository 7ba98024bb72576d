//! `taut docs`: the pages of `docs/` that are about the command, for those who have nothing but the program.

use std::error::Error;
use std::fmt::Write as _;

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::output;

/// Show the documentation
///
/// The pages are Markdown, as in the folder docs/ of the sources of this version.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The page to show; without one, the pages are listed
    #[arg(value_parser = PossibleValuesParser::new(PAGES.iter().map(|(name, _)| *name)))]
    page: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let page = arguments.page.as_deref().and_then(|page| PAGES.iter().find(|(name, _)| *name == page));
    match page {
        Some((_, text)) => output::print(text)?,
        None => output::print(&list())?,
    }
    Ok(())
}

fn list() -> String {
    let mut list = "Pages (taut docs PAGE):\n\n".to_owned();
    for (name, text) in PAGES {
        let title = text.lines().next().unwrap_or_default().trim_start_matches("# ");
        // Writing to a `String` cannot fail.
        let _ = writeln!(list, "  {name:17}  {title}");
    }
    list
}

/// A page of `docs/`.
macro_rules! page {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../docs/", $name, ".md")))
    };
}

const PAGES: &[(&str, &str)] = &[
    page!("alerts"),
    page!("auth"),
    page!("compatibility"),
    page!("configuration"),
    page!("deploy"),
    page!("guarantees"),
    page!("kubernetes"),
    page!("metrics"),
    page!("migrating-servers"),
    page!("php"),
    page!("proxies"),
    page!("publish"),
    page!("routes"),
    page!("scaling"),
    page!("terminal"),
    page!("tls"),
    page!("traces"),
];

const EXAMPLES: &str = "\
Examples:
  taut docs
  taut docs deploy | less";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_a_title_and_is_listed() {
        let list = list();
        for (name, text) in PAGES {
            assert!(text.starts_with("# "), "{name}");
            assert!(list.contains(&format!("  {name} ")), "{list}");
        }
    }
}
