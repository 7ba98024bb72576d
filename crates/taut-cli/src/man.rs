//! `taut man`: the manual pages, made of what the commands say of themselves.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;

use crate::exit::Exit;
use crate::output;

/// Print a manual page, or write all of them to a folder
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The command whose page to print, such as `route test`; without one, the page of taut itself
    command: Vec<String>,

    /// Write all pages to this folder, which is made if it is not there
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    out: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, command: Command) -> Exit {
    let pages = pages(command);
    let name = [&["taut".to_owned()], &arguments.command[..]].concat().join("-");
    let written = match (&arguments.out, pages.iter().find(|page| page.name == name)) {
        (Some(folder), _) => write(folder, &pages),
        (None, Some(page)) => output::print(&page.text),
        (None, None) => {
            let command = arguments.command.join(" ");
            output::fail(format_args!("there is no command `taut {command}`: see taut --help"));
            return Exit::Usage;
        }
    };
    match written {
        Ok(()) => Exit::Done,
        Err(error) => {
            output::fail(error);
            Exit::Failed
        }
    }
}

fn write(folder: &Path, pages: &[Page]) -> Result<(), String> {
    let cannot = |path: &Path, error| format!("{} cannot be written: {error}", path.display());
    fs::create_dir_all(folder).map_err(|error| cannot(folder, error))?;
    for Page { name, text } in pages {
        let path = folder.join(format!("{name}.1"));
        fs::write(&path, text).map_err(|error| cannot(&path, error))?;
    }
    Ok(())
}

struct Page {
    /// As `man` looks it up: `taut-route-test`.
    name: String,
    text: String,
}

/// The page of each command that can be called, and of `taut` itself.
fn pages(command: Command) -> Vec<Page> {
    let mut command = command.disable_help_subcommand(true).flatten_help(false);
    command.build();
    let mut pages = Vec::new();
    add_pages(&command, "", &mut pages);
    pages
}

fn add_pages(command: &Command, parent: &str, pages: &mut Vec<Page>) {
    let name =
        if parent.is_empty() { command.get_name().to_owned() } else { format!("{parent}-{}", command.get_name()) };
    pages.push(Page { name: name.clone(), text: page(command, &name) });
    for child in command.get_subcommands().filter(|child| !child.is_hide_set() && child.get_name() != "help") {
        add_pages(child, &name, pages);
    }
}

fn page(command: &Command, name: &str) -> String {
    let (command, has_commands) = (command.clone(), command.has_subcommands());
    // Man pages have the codes in a section of their own.
    let notes = command.get_after_help().map(ToString::to_string).unwrap_or_default().replace(&Exit::help(), "");
    let command = command.after_help(None::<&str>).after_long_help(None::<&str>).display_name(name);
    let man = Man::new(command).title(name).source(format!("taut {}", crate::VERSION));
    let mut text = Vec::new();
    // Writing to a `Vec` cannot fail.
    let _ = render(&man, has_commands, &mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    ascii(&(text + &notes_sections(&notes) + &exit_section(name) + &see_also(name)))
}

/// roff itself reads bytes: what is not ASCII is named by its number.
fn ascii(text: &str) -> String {
    let named = |character: char| match character {
        _ if character.is_ascii() => character.to_string(),
        _ => format!("\\[u{:04X}]", u32::from(character)),
    };
    text.chars().map(named).collect()
}

fn render(man: &Man, has_commands: bool, text: &mut Vec<u8>) -> std::io::Result<()> {
    man.render_title(text)?;
    man.render_name_section(text)?;
    man.render_synopsis_section(text)?;
    man.render_description_section(text)?;
    man.render_options_section(text)?;
    if has_commands { man.render_subcommands_section(text) } else { Ok(()) }
}

/// What stands below a command's help, one paragraph after the other: examples keep their lines, notes are filled.
fn notes_sections(notes: &str) -> String {
    let section = |paragraph: &str| match paragraph.strip_prefix("Examples:\n") {
        Some(examples) => format!(".SH EXAMPLES\n.nf\n{}.fi\n", lines(examples)),
        None => format!(".SH NOTES\n{}", lines(paragraph)),
    };
    notes.split("\n\n").map(str::trim_end).filter(|paragraph| !paragraph.is_empty()).map(section).collect()
}

fn exit_section(name: &str) -> String {
    let mut section = ".SH \"EXIT STATUS\"\n".to_owned();
    for (exit, meaning) in Exit::ALL {
        // Writing to a `String` cannot fail.
        let _ = write!(section, ".TP\n.B {}\n{}", *exit as u8, lines(meaning.trim()));
    }
    if name == "taut" { section } else { section + ".PP\nAll commands share these codes.\n" }
}

fn see_also(name: &str) -> String {
    let others = if name == "taut" { "" } else { ".BR taut (1),\n" };
    format!(".SH \"SEE ALSO\"\n{others}.B taut docs\nshows the documentation.\n")
}

/// Text for roff: no line may look like a request, and backslashes and hyphens are themselves.
fn lines(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    escaped
        .lines()
        .map(|line| if line.starts_with('.') { format!("\\&{line}\n") } else { format!("{line}\n") })
        .collect()
}

const EXAMPLES: &str = "\
Examples:
  taut man | man -l -
  taut man route test | man -l -
  taut man --out ~/.local/share/man/man1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_each_command_with_examples_and_exit_codes() {
        let pages = pages(crate::command());
        let names: Vec<&str> = pages.iter().map(|page| page.name.as_str()).collect();
        for name in ["taut", "taut-serve", "taut-route-test", "taut-publish", "taut-man"] {
            assert!(names.contains(&name), "{names:?}");
        }
        for Page { name, text } in &pages {
            assert!(text.contains(&format!(".TH {name} 1 ")), "{name}:\n{text}");
            assert!(text.contains(&format!(" \"taut {}", env!("CARGO_PKG_VERSION"))), "{name}:\n{text}");
            assert!(text.contains(".SH \"EXIT STATUS\"") && text.contains("\n.B 124\n"), "{name}:\n{text}");
            assert_eq!(text.matches("Exit codes:").count(), 0, "{name}");
            assert!(text.contains(".SH EXAMPLES\n.nf\n  ") || name == "taut-route", "{name}:\n{text}");
        }
    }

    #[test]
    fn notes_stand_below_the_examples() {
        let sections = notes_sections("Examples:\n  taut x\n\nIt ends\nwith 0.\n\n");
        assert_eq!(sections, ".SH EXAMPLES\n.nf\n  taut x\n.fi\n.SH NOTES\nIt ends\nwith 0.\n");
        assert_eq!(notes_sections(""), "");
    }

    #[test]
    fn no_line_of_a_text_is_a_request_of_roff() {
        assert_eq!(lines(".x 'a' \\n\n-b"), "\\&.x \\(aqa\\(aq \\en\n\\-b\n");
        assert_eq!(ascii("a … b"), "a \\[u2026] b");
    }
}
