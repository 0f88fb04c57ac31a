//! A data folder is backed up while its server works, and a server goes on from the backup.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use underpass_tests::bytes::{echo, echoes};
use underpass_tests::{Server, Store, run};

#[test]
fn a_server_goes_on_from_a_backup_that_was_made_while_it_worked() {
    let mut server = Server::start(Store::RocksDb);
    let laptop = server.client("laptop");
    let target = echo().to_string();
    let (mut exposing, public) = laptop.expose(&[&target, "--name", "web"]);
    echoes(public).unwrap();
    assert_eq!(exposing.end(), 0);
    let api = server.api();
    let (folder, data) = (server.data().parent().unwrap().to_owned(), server.data_text());
    let stop = AtomicBool::new(false);
    let mut backups = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                api.post("/v1/invites", &json!({ "label": "busy" }));
                let open = api.get("/v1/invites")["items"].as_array().unwrap().clone();
                let open = open.iter().find(|invite| invite["status"] == "open").unwrap();
                let path = format!("/v1/invites/{}", open["id"].as_str().unwrap());
                assert!(api.send(reqwest::Method::DELETE, &path, None).status().is_success());
            }
        });
        for nth in 0..3 {
            let to = folder.join(format!("backup-{nth}"));
            let done = run(&["store", "backup", "--data", &data, "--to", &to.display().to_string()]);
            let position = done.last()["position"].as_str().unwrap().to_owned();
            let position: u64 = position.trim_start_matches("control:").parse().unwrap();
            backups.push((to, position));
        }
        stop.store(true, Ordering::Relaxed);
    });
    for (to, position) in &backups {
        let verified = run(&["log", "verify", "--data", &to.display().to_string()]);
        assert!(verified.last()["head"].as_u64().unwrap() >= *position, "{verified:?}");
        for secret in ["link.key", "admin.key"] {
            assert_eq!(std::fs::metadata(to.join(secret)).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    // The folder is lost; the backup takes its place.
    assert_eq!(server.process.end(), 0);
    std::fs::rename(server.data(), folder.join("lost")).unwrap();
    std::fs::rename(&backups[2].0, server.data()).unwrap();
    server.restart();
    let (mut exposing, same) = laptop.expose(&[&target, "--name", "web"]);
    assert_eq!(same, public, "the same client, the same mapping");
    echoes(public).unwrap();
    assert_eq!(exposing.end(), 0);
    server.verified();

    // Without a server as well; into what is taken, never.
    assert_eq!(server.process.end(), 0);
    let offline = folder.join("offline").display().to_string();
    assert_eq!(run(&["store", "backup", "--data", &data, "--to", &offline]).last()["event"], "backed_up");
    run(&["store", "backup", "--data", &data, "--to", &offline]).failed(3, "backup.not_empty");
    run(&["store", "backup", "--data", &data, "--to", &data]).failed(3, "backup.not_empty");
}

#[test]
fn a_backup_is_for_who_may_read_the_folder_and_for_a_log_that_lies_in_it() {
    let server = Server::start(Store::Memory);
    let to = server.data().parent().unwrap().join("backup").display().to_string();
    let answer = server.api().send(reqwest::Method::POST, "/v1/backups", Some(&json!({ "to": to })));
    assert_eq!(answer.status(), 403);
    run(&["store", "backup", "--data", &server.data_text(), "--to", &to]).failed(3, "backup.elsewhere");
    assert!(!std::path::Path::new(&to).exists());
}
