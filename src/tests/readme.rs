//! The README's tree is the tree on the disk, and the Chinese README says what the English one says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Words behind each folder of the README's tree; a line without a folder goes on with the last one.
fn readme_tree(readme: &str) -> BTreeMap<String, BTreeSet<String>> {
    let tree = readme
        .split("```")
        .find(|block| block.starts_with("text\nkindling/\n"))
        .expect("README.md has a text block that begins with kindling/");
    let mut folders = BTreeMap::new();
    let mut folder = String::new();
    for line in tree.lines().skip(2) {
        let mut words = line
            .trim_start_matches(['│', '├', '└', '─', ' '])
            .split(' ');
        if line.starts_with(['├', '└']) {
            words.next().unwrap_or_default().clone_into(&mut folder);
        }
        let names: &mut BTreeSet<String> = folders.entry(folder.clone()).or_default();
        names.extend(words.filter(|word| !word.is_empty()).map(str::to_owned));
    }
    folders
}

/// Names of a folder's Rust files without their ending, and of its folders with a slash.
fn disk_names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name();
            let name = name.to_str()?;
            // A link to a folder, such as one to corpora elsewhere, is not a folder of ours.
            if entry.file_type().ok()?.is_dir() {
                return Some(format!("{name}/"));
            }
            name.strip_suffix(".rs").map(str::to_owned)
        })
        .collect()
}

/// Every folder of the tree is there, every visible folder of the root and every source file of a
/// room is in the tree.
#[test]
fn readme_tree_matches_disk() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let folders = readme_tree(&readme);

    let shown: BTreeSet<String> = folders
        .keys()
        .filter_map(|folder| folder.split_inclusive('/').next().map(str::to_owned))
        .collect();
    let is_ours =
        |name: &String| name.ends_with('/') && !name.starts_with('.') && name != "target/";
    let there: BTreeSet<String> = disk_names(root).into_iter().filter(is_ours).collect();
    assert_eq!(
        shown, there,
        "left: folders in README.md, right: on the disk"
    );

    for (folder, names) in folders
        .iter()
        .filter(|(folder, _)| folder.ends_with("src/"))
    {
        let there = disk_names(&root.join(folder));
        let missing: Vec<_> = there.difference(names).collect();
        let gone: Vec<_> = names.difference(&there).collect();
        assert!(
            missing.is_empty() && gone.is_empty(),
            "README.md, {folder}: the tree lacks {missing:?} and has {gone:?}, which do not exist"
        );
    }
}

/// What a translation must not change: commands, programs, flags and files, in their order within a
/// table or list of commands, and measured numbers.
struct Facts {
    commands: Vec<String>,
    tables: Vec<Vec<String>>,
    spans: Vec<String>,
    numbers: Vec<String>,
}

impl Facts {
    fn of(readme: &str) -> Self {
        let mut facts = Self {
            commands: Vec::new(),
            tables: Vec::new(),
            spans: Vec::new(),
            numbers: Vec::new(),
        };
        for (index, block) in readme.split("```").enumerate() {
            if index % 2 == 1 && !block.starts_with("text") {
                // What stands behind a command is for the reader.
                let command = |line: &str| {
                    line.split(" #")
                        .next()
                        .unwrap_or_default()
                        .trim()
                        .to_owned()
                };
                facts.commands.extend(block.lines().map(command));
            }
            if index % 2 == 1 {
                continue;
            }
            for line in block.lines() {
                let spans: Vec<String> = line
                    .split('`')
                    .skip(1)
                    .step_by(2)
                    .map(str::to_owned)
                    .collect();
                if line.starts_with('|') {
                    facts.tables.push(spans);
                } else {
                    facts.spans.extend(spans);
                }
            }
            let is_part = |c: char| c.is_ascii_digit() || c == '.' || c == ',';
            let numbers = block
                .split(|c| !is_part(c))
                .map(|n| n.trim_matches(['.', ',']));
            let is_measured = |number: &&str| number.contains(['.', ',']) || number.len() > 2;
            facts
                .numbers
                .extend(numbers.filter(is_measured).map(str::to_owned));
        }
        facts.spans.sort();
        facts.numbers.sort();
        facts
    }
}

/// Prose is translated; what one types and what was measured is the same.
#[test]
fn the_chinese_readme_says_the_same() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    let (english, chinese) = (read("README.md"), read("README_zh.md"));
    let (ours, theirs) = (Facts::of(&english), Facts::of(&chinese));
    assert!(ours.commands.len() > 10 && ours.tables.len() > 5);
    assert_eq!(ours.commands, theirs.commands);
    assert_eq!(ours.tables, theirs.tables);
    assert_eq!(ours.spans, theirs.spans);
    assert_eq!(ours.numbers, theirs.numbers);
    assert_eq!(
        readme_tree(&english).keys().count(),
        readme_tree(&chinese).keys().count()
    );
    for (folder, names) in readme_tree(&english) {
        if folder.ends_with("src/") {
            assert_eq!(names, readme_tree(&chinese)[&folder], "{folder}");
        }
    }
}
