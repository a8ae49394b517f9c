//! A page of Markdown, as what is to be done.

/// A block of a page.
#[derive(Debug, PartialEq)]
pub enum Part {
    /// A block headed by a language and an absolute path: a file with this text.
    File {
        /// Where.
        path: String,
        /// What.
        text: String,
    },
    /// A block headed `console`.
    Session(Vec<Command>),
}

/// What is typed behind a prompt.
#[derive(Debug, PartialEq)]
pub struct Command {
    /// The line of the page, from 1.
    pub number: usize,
    /// Behind `#`; else behind `$`.
    pub root: bool,
    /// The text.
    pub line: String,
    /// What it prints; nothing: the page does not say.
    pub output: Vec<String>,
}

/// The blocks of a page, in their order. Those of indented lines are examples within a sentence.
pub fn parts(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let Some(head) = line.strip_prefix("```") else { continue };
        let body: Vec<(&str, usize)> = lines.by_ref().take_while(|(line, _)| *line != "```").collect();
        parts.push(match head.split_once(' ') {
            Some((_, path)) if path.starts_with('/') => {
                let text = body.iter().map(|(line, _)| format!("{line}\n")).collect();
                Part::File { path: path.to_string(), text }
            }
            None if head == "console" => Part::Session(session(&body)?),
            _ => return Err(format!("line {number}: a block is `console`, or a language and the path of a file")),
        });
    }
    Ok(parts)
}

/// The blocks of this language that name no file: examples, also those of indented lines, without their indent.
pub fn examples(text: &str, language: &str) -> Vec<String> {
    let mut examples = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(head) = line.trim_start().strip_prefix("```") else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let body = lines.by_ref().take_while(|line| line.trim_start() != "```");
        let text = body.map(|line| format!("{}\n", line.strip_prefix(indent).unwrap_or(line))).collect();
        if head == language {
            examples.push(text);
        }
    }
    examples
}

fn session(body: &[(&str, usize)]) -> Result<Vec<Command>, String> {
    let mut commands: Vec<Command> = Vec::new();
    for (line, number) in body {
        let typed =
            line.strip_prefix("# ").map(|rest| (true, rest)).or(line.strip_prefix("$ ").map(|rest| (false, rest)));
        match (typed, commands.last_mut()) {
            (Some((root, rest)), _) => {
                commands.push(Command { number: *number, root, line: rest.to_string(), output: Vec::new() });
            }
            (None, Some(command)) => command.output.push(line.to_string()),
            (None, None) => return Err(format!("line {number}: output of no command")),
        }
    }
    Ok(commands)
}

/// Whether that is what the page shows: a line `...` is any number of lines, `…` any part of one. Blanks count as one: columns are as wide as
/// what is in them.
pub fn matches(shown: &[String], said: &str) -> bool {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let said: Vec<String> = said.lines().map(words).filter(|line| !line.is_empty()).collect();
    let shown: Vec<String> = shown.iter().map(|line| words(line)).filter(|line| !line.is_empty()).collect();
    let said: Vec<&str> = said.iter().map(String::as_str).collect();
    let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
    shown.is_empty() || lines_match(&shown, &said)
}

fn lines_match(shown: &[&str], said: &[&str]) -> bool {
    match (shown, said) {
        ([], []) => true,
        (["...", rest @ ..], _) => (0..=said.len()).any(|skipped| lines_match(rest, &said[skipped..])),
        ([first, shown @ ..], [line, said @ ..]) => line_matches(first, line) && lines_match(shown, said),
        _ => false,
    }
}

fn line_matches(shown: &str, said: &str) -> bool {
    match shown.split_once('…') {
        None => shown == said,
        Some((before, after)) => said.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| line_matches(after, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_files_and_commands() {
        let page = "# Title\n```json /etc/a.json\n{}\n```\ntext\n```console\n# echo a\na\n$ true\n```\n";
        let command = |number, root, line: &str, output: &[&str]| Command {
            number,
            root,
            line: line.to_string(),
            output: output.iter().map(|line| line.to_string()).collect(),
        };
        let file = Part::File { path: "/etc/a.json".to_string(), text: "{}\n".to_string() };
        let session = Part::Session(vec![command(7, true, "echo a", &["a"]), command(9, false, "true", &[])]);
        assert_eq!(parts(page), Ok(vec![file, session]));
        assert!(parts("```sh\nrm x\n```\n").unwrap_err().contains("line 1"));
        assert!(parts("```console\nno prompt\n```\n").unwrap_err().contains("line 2"));
    }

    #[test]
    fn examples_have_a_language_and_no_path() {
        let page = "```toml /etc/a.toml\nfile = 1\n```\n1. One:\n\n   ```toml\n   [a]\n     b = 1\n\n   ```\n\n```toml\nc = 2\n```\n```yaml\nd: 3\n```\n";
        assert_eq!(examples(page, "toml"), ["[a]\n  b = 1\n\n", "c = 2\n"]);
        assert_eq!(examples(page, "yaml"), ["d: 3\n"]);
    }

    #[test]
    fn what_a_page_shows_may_leave_parts_out() {
        for (shown, said, same) in [
            ("a", "a\n", true),
            ("a", "b\n", false),
            ("a", "a\nb\n", false),
            ("...\nb\n...", "a\nb\nc\n", true),
            ("...\nx\n...", "a\nb\nc\n", false),
            ("id …", "id 17\n", true),
            ("ID     …    UP", "ID      45580   UP\n", true),
            ("… of …!", "one of two!", true),
            ("…", "a\nb\n", false),
            ("", "anything", true),
        ] {
            let shown: Vec<String> = shown.lines().map(str::to_string).collect();
            assert_eq!(matches(&shown, said), same, "{shown:?} {said:?}");
        }
    }
}
