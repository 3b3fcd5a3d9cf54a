//! The help of one command, and the command that somebody meant.

#[path = "../../crates/storage-config/src/nearest.rs"]
#[allow(unreachable_pub, reason = "the crate makes it public")]
mod nearest_name;

/// The lines of the help that are about this command.
pub(crate) fn of(command: &str, help: &str) -> String {
    let is_about = |line: &str| line.trim_start().split([' ', '[']).next() == Some(command);
    let mut lines = Vec::new();
    let mut wanted = false;
    for line in help.lines() {
        if line.starts_with("  ") && !line.starts_with("   ") {
            wanted = is_about(line);
        }
        if wanted {
            lines.push(line);
        }
    }
    if lines.is_empty() {
        return help.to_owned();
    }
    format!("cargo xtask COMMAND\n\n{}", lines.join("\n"))
}

/// The command whose name is nearest to what was typed.
pub(crate) fn nearest<'a>(typed: &str, help: &'a str) -> Option<&'a str> {
    let commands = help.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    nearest_name::nearest(typed, commands.filter_map(|line| line.split_whitespace().next()))
}

#[cfg(test)]
mod tests {
    use super::{nearest, of};
    use crate::HELP;

    #[test]
    fn help_of_a_command_is_about_that_command_alone() {
        let bench = of("bench", HELP);
        assert!(
            bench.contains("--against COMMIT") && bench.contains("bench layers") && !bench.contains("soak"),
            "{bench}"
        );
        assert!(of("tidy", HELP).lines().count() == 3);
        assert_eq!(of("no-such-command", HELP), HELP);
    }

    #[test]
    fn a_mistyped_command_is_told_what_was_meant() {
        assert_eq!(nearest("conformence", HELP), Some("conformance"));
        assert_eq!(nearest("tdy", HELP), Some("tidy"));
        assert_eq!(nearest("deploy", HELP), None);
    }
}
