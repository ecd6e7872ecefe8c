//! Pages of the documentation that are executed: their commands, and the output that they show.
//!
//! A fenced block of the language `sh` is what a person types; a block `text` right after it is what is printed then, `…` standing
//! for whatever is there. A block `sh by-hand` is not executed by a test.

use anyhow::{Result, bail, ensure};

/// Commands of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Line of the page on which they begin.
    pub line: usize,
    /// Whether a person alone does this.
    pub by_hand: bool,
    /// What is typed.
    pub commands: String,
    /// What the page says is printed.
    pub shown: Option<String>,
}

/// The steps of a page, in order.
///
/// # Errors
/// A block of an unknown language, an output without commands, or a fence that is not closed.
pub fn steps(markdown: &str) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = markdown.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let mut text = String::new();
        loop {
            match lines.next() {
                Some((_, "```")) => break,
                Some((_, line)) => text += &format!("{line}\n"),
                None => bail!("line {}: the block is not closed", number + 1),
            }
        }
        match (info, steps.last_mut()) {
            ("sh" | "sh by-hand", _) => {
                steps.push(Step { line: number + 2, by_hand: info != "sh", commands: text, shown: None });
            }
            ("text", Some(step)) if step.shown.is_none() => step.shown = Some(text),
            _ => bail!("line {}: a block of {info:?} is neither a command nor its output", number + 1),
        }
    }
    Ok(steps)
}

/// Whether `printed` is what the page shows. Numbers of spaces, ages and the names of nodes may differ; `…` is anything within a
/// word, a word alone at the end of a line the rest of the line, and a line alone any lines.
///
/// # Errors
/// The first line that differs.
pub fn compare(shown: &str, printed: &str) -> Result<()> {
    let mut printed_lines = printed.lines().filter(|line| !line.trim().is_empty() && !is_log(line)).peekable();
    let mut skip = false;
    for line in shown.lines().filter(|line| !line.trim().is_empty()) {
        if line.trim() == "…" {
            skip = true;
            continue;
        }
        while skip && printed_lines.peek().is_some_and(|printed| !same_line(line, printed)) {
            printed_lines.next();
        }
        skip = false;
        let found = printed_lines.next().unwrap_or_default();
        ensure!(same_line(line, found), "the page shows {line:?}, but {found:?} was printed, of:\n{printed}");
    }
    if let Some(more) = printed_lines.next().filter(|_| !skip) {
        bail!("the page does not show {more:?}, which was printed, of:\n{printed}");
    }
    Ok(())
}

/// What client-go logs now and then, such as `I1122 09:22:55.522786 …` when a watch ends at the wrong moment.
fn is_log(line: &str) -> bool {
    let mut words = line.split(' ');
    let date = words.next().and_then(|word| word.strip_prefix(['I', 'W', 'E']));
    let numbers = |word: &str| word.len() > 3 && word.chars().all(|c| c.is_ascii_digit() || ":.".contains(c));
    date.is_some_and(numbers) && words.next().is_some_and(numbers)
}

fn same_line(shown: &str, printed: &str) -> bool {
    let mut words = printed.split_whitespace();
    let mut expected = shown.split_whitespace().peekable();
    while let Some(word) = expected.next() {
        if word == "…" && expected.peek().is_none() {
            return true;
        }
        if !words.next().is_some_and(|found| same_word(word, found)) {
            return false;
        }
    }
    words.next().is_none()
}

fn same_word(shown: &str, printed: &str) -> bool {
    if let Some((before, after)) = shown.split_once('…') {
        return printed.strip_prefix(before).is_some_and(|rest| rest.ends_with(after));
    }
    shown == printed || (is_age(shown) && is_age(printed)) || (is_node(shown) && is_node(printed))
}

/// As kubectl prints it: `7s`, `3m12s`, `2d`.
fn is_age(word: &str) -> bool {
    let units = word.chars().filter(|c| "smhd".contains(*c)).count();
    word.starts_with(|c: char| c.is_ascii_digit())
        && (1..=2).contains(&units)
        && word.ends_with(['s', 'm', 'h', 'd'])
        && word.chars().all(|c| c.is_ascii_digit() || "smhd".contains(c))
}

/// A node of the lab: which ones have a volume's copies depends on what was there before.
fn is_node(word: &str) -> bool {
    word.strip_prefix('n').is_some_and(|number| number.parse::<u8>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_the_output_that_follows_them() {
        let page = "a\n\n```sh\nls\n```\n\n```text\nx  3s\n```\n```sh by-hand\nmake\n```\n";
        let step = |line, by_hand, commands: &str, shown: Option<&str>| Step {
            line,
            by_hand,
            commands: commands.into(),
            shown: shown.map(Into::into),
        };
        assert_eq!(steps(page).unwrap(), [step(4, false, "ls\n", Some("x  3s\n")), step(11, true, "make\n", None)]);
        for wrong in ["```sh\nls\n", "```text\nx\n```\n", "```\nx\n```\n", "```yaml\nx\n```\n"] {
            assert!(steps(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn output_is_compared_but_for_what_changes_from_run_to_run() {
        for (shown, printed) in [
            ("NAME AGE\ndemo 3s\n", "NAME   AGE\ndemo   1m12s\n"),
            ("on n1", "on n3"),
            ("id …\n", "id a b c\n"),
            ("seq-…-x end", "seq-77-x end"),
            ("a\n…\nc\n", "a\nb\nb\nc\n"),
            ("a\n…\n", "a\n"),
            ("a\n", "I1122 09:22:55.522786     679 reflector.go:664] \"Warning: watch ended\"\na\n"),
        ] {
            compare(shown, printed).unwrap();
        }
        for (shown, printed) in [
            ("a", "b"),
            ("a", ""),
            ("", "a"),
            ("a", "a b"),
            ("a b", "a"),
            ("3s", "demo"),
            ("a\n…\nc", "a\nb"),
            ("…x y", "x"),
        ] {
            assert!(compare(shown, printed).is_err(), "{shown:?} is not {printed:?}");
        }
    }
}
