//! `taut completions`: what lets a shell complete the command.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::output;

/// Print the completions for a shell
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The shell to print completions for
    shell: Shell,
}

/// # Errors
/// The output cannot be written.
pub(crate) fn run(arguments: &Arguments, mut command: Command) -> Result<(), String> {
    output::print(&script(arguments.shell, &mut command))
}

fn script(shell: Shell, command: &mut Command) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "taut", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

const EXAMPLES: &str = "\
Examples:
  source <(taut completions bash)                              # in ~/.bashrc
  taut completions zsh > ~/.zfunc/_taut                        # a folder of fpath
  taut completions fish > ~/.config/fish/completions/taut.fish
  taut completions powershell | Out-String | Invoke-Expression # in $PROFILE
  eval (taut completions elvish | slurp)                       # in ~/.config/elvish/rc.elv";

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_completes_every_command() {
        let command = crate::command();
        for shell in Shell::value_variants() {
            let script = script(*shell, &mut command.clone());
            for name in command.get_subcommands().map(Command::get_name) {
                assert!(script.contains(name), "{shell}: {name}");
            }
        }
    }
}
