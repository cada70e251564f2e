//! The README's tree is the tree on the disk.

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
