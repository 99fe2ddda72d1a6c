//! What stands in a Markdown page, each with the number of its line.

/// What a line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Prose,
    Table,
    Code,
    Fence,
}

pub struct Line<'a> {
    pub number: usize,
    pub kind: Kind,
    pub text: &'a str,
}

/// A piece of text and the line it begins on.
pub type At = (usize, String);

pub fn lines(page: &str) -> Vec<Line<'_>> {
    let mut in_code = false;
    let line = |(index, text): (usize, &'_ str)| {
        let start = text.trim_start();
        let kind = if start.starts_with("```") {
            in_code = !in_code;
            Kind::Fence
        } else if in_code {
            Kind::Code
        } else if start.starts_with('|') {
            Kind::Table
        } else {
            Kind::Prose
        };
        (index + 1, kind)
    };
    let kinds: Vec<(usize, Kind)> = page.lines().enumerate().map(line).collect();
    let whole = kinds.into_iter().zip(page.lines());
    whole
        .map(|((number, kind), text)| Line { number, kind, text })
        .collect()
}

/// Returns the paragraphs of prose, and the rows of tables.
fn blocks(page: &str) -> Vec<At> {
    let mut blocks: Vec<At> = Vec::new();
    let mut open = false;
    for line in lines(page) {
        let is_text = matches!(line.kind, Kind::Prose | Kind::Table) && !line.text.is_empty();
        if is_text && open && line.kind == Kind::Prose {
            if let Some((_, block)) = blocks.last_mut() {
                block.push('\n');
                block.push_str(line.text);
            }
        } else if is_text {
            blocks.push((line.number, line.text.to_owned()));
        }
        open = is_text && line.kind == Kind::Prose;
    }
    blocks
}

/// Cuts a block into what stands outside and inside of code spans, by turns.
fn cut(block: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = block;
    while let Some(from) = rest.find('`') {
        let ticks = rest.len() - from - rest[from..].trim_start_matches('`').len();
        let mark = "`".repeat(ticks);
        let inner = &rest[from + ticks..];
        let Some(to) = inner.find(&mark) else { break };
        parts.push(&rest[..from]);
        parts.push(&inner[..to]);
        rest = &inner[to + ticks..];
    }
    parts.push(rest);
    parts
}

/// Returns the code spans.
pub fn spans(page: &str) -> Vec<At> {
    let mut spans = Vec::new();
    for (mut number, block) in blocks(page) {
        for (turn, part) in cut(&block).into_iter().enumerate() {
            if turn % 2 == 1 {
                spans.push((number, part.replace('\n', " ").replace("\\|", "|")));
            }
            number += part.matches('\n').count();
        }
    }
    spans
}

/// Returns where the links lead.
pub fn links(page: &str) -> Vec<At> {
    let mut links = Vec::new();
    for (mut number, block) in blocks(page) {
        for (turn, part) in cut(&block).into_iter().enumerate() {
            let mut rest = part;
            while let (0, Some(from)) = (turn % 2, rest.find("](")) {
                number += rest[..from].matches('\n').count();
                rest = &rest[from + 2..];
                links.extend(rest.find(')').map(|to| (number, rest[..to].to_owned())));
            }
            number += rest.matches('\n').count();
        }
    }
    links
}

/// Returns the anchors that the headings make, as the forges name them.
pub fn anchors(page: &str) -> Vec<String> {
    let headings = lines(page).into_iter().filter_map(|line| {
        let is_heading = line.kind == Kind::Prose && line.text.starts_with('#');
        is_heading.then(|| line.text.trim_start_matches('#').trim().to_lowercase())
    });
    let plain = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    headings
        .map(|text| text.chars().filter(plain).collect::<String>())
        .map(|text| text.replace(' ', "-"))
        .collect()
}

/// Returns the rows of the tables below the heading `anchor`, cell by cell.
pub fn rows(page: &str, anchor: &str) -> Vec<Vec<String>> {
    let mut inside = false;
    let mut rows = Vec::new();
    for line in lines(page) {
        if line.kind == Kind::Prose && line.text.starts_with('#') {
            inside = anchors(line.text) == [anchor];
        } else if inside && line.kind == Kind::Table {
            let cells = line.text.trim().trim_matches('|').split('|');
            rows.push(cells.map(|cell| cell.trim().to_owned()).collect());
        }
    }
    rows
}

#[test]
fn a_page_is_taken_apart() {
    let page = "# A `b`, c\n\nAn `x\ny` and [z](w.md#q) `[n](o)`\nand [v\nu](t).\n\n\
                | `a \\| b` | 2 |\n\n```sh\n# no heading `q` [r](s)\n```\n";
    let at = |line, text: &str| (line, text.to_owned());
    let kinds: Vec<Kind> = lines(page).iter().map(|line| line.kind).collect();
    assert_eq!(kinds[6..9], [Kind::Prose, Kind::Table, Kind::Prose]);
    assert_eq!(kinds[9..], [Kind::Fence, Kind::Code, Kind::Fence]);
    let found = spans(page);
    assert_eq!(found[..2], [at(1, "b"), at(3, "x y")]);
    assert_eq!(found[2..], [at(4, "[n](o)"), at(8, "a | b")]);
    assert_eq!(links(page), [at(4, "w.md#q"), at(6, "t")]);
    assert_eq!(anchors(page), ["a-b-c"]);
    let table = "## One\n| 1 | a |\n## Two\n| 2 | b |\n";
    assert_eq!(rows(table, "two"), [["2", "b"]]);
}
