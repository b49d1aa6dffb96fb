//! As much of Markdown as the tests of the documentation need.

/// A fenced block of code.
pub(super) struct Block<'a> {
    pub(super) language: &'a str,
    pub(super) text: &'a str,
    /// Where it stands: the byte offset of its first line, and of what follows the closing fence.
    pub(super) begins: usize,
    pub(super) ends: usize,
}

const FENCE: &str = "```";

/// The fenced blocks of a page, in order.
pub(super) fn blocks(page: &str) -> impl Iterator<Item = Block<'_>> {
    let mut position = 0;
    std::iter::from_fn(move || {
        let begins = position + find_fence(&page[position..])?;
        let (language, rest) = page[begins + FENCE.len()..].split_once('\n')?;
        let length = find_fence(rest).expect("a closing fence");
        let text_begins = page.len() - rest.len();
        position = text_begins + length + FENCE.len();
        Some(Block { language, text: &rest[..length], begins, ends: position })
    })
}

/// The next fence at the start of a line.
fn find_fence(text: &str) -> Option<usize> {
    let is_line_start = |&(at, _): &(usize, &str)| at == 0 || text.as_bytes()[at - 1] == b'\n';
    text.match_indices(FENCE).find(is_line_start).map(|(at, _)| at)
}

/// A page without its blocks of code.
pub(super) fn prose(page: &str) -> String {
    let mut prose = String::new();
    let mut position = 0;
    for block in blocks(page) {
        prose += &page[position..block.begins];
        position = block.ends;
    }
    prose + &page[position..]
}

/// The cells of each row of the page's tables.
pub(super) fn table_rows(page: &str) -> impl Iterator<Item = Vec<&str>> {
    page.lines().filter_map(|line| {
        let cells = line.strip_prefix('|')?.strip_suffix('|')?;
        Some(cells.split('|').map(str::trim).collect())
    })
}

/// The anchors that GitHub gives a page's headings.
pub(super) fn anchors(page: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    for line in prose(page).lines() {
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let anchor: String = heading.trim().to_lowercase().chars().filter(kept).collect();
        let anchor = anchor.replace(' ', "-");
        let earlier = anchors.iter().filter(|earlier| **earlier == anchor).count();
        anchors.push(if earlier == 0 { anchor } else { format!("{anchor}-{earlier}") });
    }
    anchors
}

/// Where the page's links lead.
pub(super) fn link_targets(page: &str) -> Vec<String> {
    let prose = prose(page);
    let without_code: String = prose.split('`').step_by(2).collect();
    let targets = without_code.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}
