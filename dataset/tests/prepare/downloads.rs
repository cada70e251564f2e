//! Downloads: the cache, broken connections, wrong bytes, and no network at all.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dataset::prepare::{Hub, HubOptions, Origin, prepare};

use crate::server::{Fault, HubServer, REVISION};
use crate::sets::{HUB, options, source};

/// A large file, by the hub's lights.
const FILE: &str = "simplescaling/s1K-1.1/data/train-00000-of-00001.parquet";

fn hub(server: &HubServer, folder: &Path, offline: bool) -> Origin {
    let hub = Hub::new(HubOptions {
        endpoint: server.endpoint.clone(),
        cache_dir: folder.join("cache"),
        token: None,
        offline,
        num_retries: 2,
        retry_wait: Duration::from_millis(1),
        show_progress: false,
    });
    Origin::Hub(Box::new(hub.unwrap()))
}

/// What became of s1K-1.1: the number of rows, or the message with its cause.
fn prepared(server: &HubServer, folder: &Path, offline: bool) -> Result<usize, String> {
    let origin = hub(server, folder, offline);
    match prepare(source("s1k"), &origin, &options(&folder.join("output"))) {
        Ok(prepared) => {
            assert_eq!(prepared.revision.as_deref(), Some(REVISION));
            Ok(prepared.files[0].written.num_rows)
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Requests for a file's content rather than for its size.
fn content_requests(server: &HubServer) -> Vec<String> {
    let log = server.log().into_iter();
    log.filter(|entry| entry.starts_with("/cdn/") && !entry.ends_with(" 0-0"))
        .collect()
}

/// The commit is pinned, a second preparation downloads nothing, and a third needs no hub.
#[test]
fn what_was_downloaded_is_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = HubServer::start(HUB);
    assert_eq!(prepared(&server, folder.path(), false), Ok(2));
    let log = server.log();
    assert_eq!(log[0], "/api/datasets/simplescaling/s1K-1.1/revision/main");
    let file = "data/train-00000-of-00001.parquet";
    assert_eq!(
        log[1],
        format!("/datasets/simplescaling/s1K-1.1/resolve/{REVISION}/{file} 0-0")
    );
    assert_eq!(content_requests(&server), [format!("/cdn/{FILE} 0-")]);

    assert_eq!(prepared(&server, folder.path(), false), Ok(2));
    assert_eq!(content_requests(&server).len(), 1);
    let asked = server.log().len();
    assert_eq!(prepared(&server, folder.path(), true), Ok(2));
    assert_eq!(server.log().len(), asked);
}

/// Files that git keeps itself have git's checksum, and no other host.
#[test]
fn small_files_come_from_the_hub_itself() {
    let folder = tempfile::tempdir().unwrap();
    let server = HubServer::start(HUB);
    let origin = hub(&server, folder.path(), false);
    let prepared = prepare(source("coig-cqia"), &origin, &options(folder.path())).unwrap();
    assert_eq!(prepared.files[0].written.num_rows, 4);
    assert!(server.log().iter().all(|entry| !entry.starts_with("/cdn/")));
    let whole = "/COIG-CQIA-full.jsonl";
    assert!(server.log().iter().all(|entry| !entry.contains(whole)));
}

/// Of 4,106 bytes the first 1,000 came before the line broke: the second try asks for the rest.
#[test]
fn a_broken_download_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let server = HubServer::start(HUB);
    server.fail_next(&[Fault::Status(503), Fault::Cut(1000)]);
    assert_eq!(prepared(&server, folder.path(), false), Ok(2));
    assert_eq!(
        content_requests(&server),
        [
            format!("/cdn/{FILE} 0-"),
            format!("/cdn/{FILE} 0-"),
            format!("/cdn/{FILE} 1000-")
        ]
    );
}

/// Three tries, and then the message says what to do.
#[test]
fn a_hub_that_never_answers_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let server = HubServer::start(HUB);
    server.fail_next(&[Fault::Status(503); 3]);
    let message = prepared(&server, folder.path(), false).unwrap_err();
    assert_eq!(
        message,
        format!(
            "{}/datasets/simplescaling/s1K-1.1: data/train-00000-of-00001.parquet could not be \
             downloaded in 3 tries (HF_ENDPOINT names a mirror, --from a folder of files)",
            server.endpoint
        )
    );
    assert!(!folder.path().join("output/s1k_train.jsonl").exists());
}

/// Asking again would not help, so nobody does.
#[test]
fn a_refusal_is_final() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let server = HubServer::start(empty);
    let message = prepared(&server, folder.path(), false).unwrap_err();
    assert!(
        message.contains("the list of files was refused with status 404"),
        "{message}"
    );
    assert_eq!(server.log().len(), 1);
}

/// Wrong bytes are fetched once more, and are an error if they stay wrong.
#[test]
fn wrong_bytes_are_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let server = HubServer::start(HUB);
    server.fail_next(&[Fault::Garbled]);
    assert_eq!(prepared(&server, folder.path(), false), Ok(2));
    assert_eq!(content_requests(&server).len(), 2);

    let folder = tempfile::tempdir().unwrap();
    server.fail_next(&[Fault::Garbled, Fault::Garbled]);
    let message = prepared(&server, folder.path(), false).unwrap_err();
    assert!(message.contains(": the checksum is "), "{message}");
}

/// Bytes of the cache that changed are found out too; without a network that is an error.
#[test]
fn a_broken_cache_is_mended_or_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = HubServer::start(HUB);
    assert_eq!(prepared(&server, folder.path(), false), Ok(2));
    let break_it = || {
        let blobs = folder
            .path()
            .join("cache/datasets--simplescaling--s1K-1.1/blobs");
        let blobs = fs::read_dir(blobs)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let blobs: Vec<PathBuf> = blobs.filter(|path| path.extension().is_none()).collect();
        assert_eq!(blobs.len(), 1);
        fs::write(&blobs[0], "not what it was").unwrap();
    };
    break_it();
    let message = prepared(&server, folder.path(), true).unwrap_err();
    assert!(message.contains(": the checksum is "), "{message}");
    assert_eq!(prepared(&server, folder.path(), false), Ok(2));
    assert_eq!(prepared(&server, folder.path(), true), Ok(2));
}

/// An empty cache and no network: the message says what is missing and where.
#[test]
fn offline_needs_a_cache() {
    let folder = tempfile::tempdir().unwrap();
    let server = HubServer::start(HUB);
    let message = prepared(&server, folder.path(), true).unwrap_err();
    assert!(
        message.starts_with("simplescaling/s1K-1.1: the list of files is not in the cache "),
        "{message}"
    );
    assert!(server.log().is_empty());
}
