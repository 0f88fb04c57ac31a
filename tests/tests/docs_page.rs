//! C59: the docs page in a real browser that has no network but the loopback of this test: it lists every
//! operation, can try them out, and asks nobody else for anything.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeSet, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use serde_json::{Value, json};
use underpass_tests::services::program;
use underpass_tests::{Process, SOON, eventually, underpass};

/// How the network is taken away.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// A network namespace with nothing but a loopback.
    Namespace,
    /// The same, for who is not root.
    UserNamespace,
    /// Where neither is allowed: no name resolves.
    NoNames,
}

impl Cut {
    fn possible() -> Self {
        let works = |arguments: &[&str]| {
            Command::new("unshare")
                .args(arguments)
                .arg("true")
                .output()
                .is_ok_and(|done| done.status.success())
        };
        match () {
            () if works(&["-n"]) => Self::Namespace,
            () if works(&["-r", "-n"]) => Self::UserNamespace,
            () => Self::NoNames,
        }
    }

    /// A new place without a network, in which the program that is appended runs.
    fn enter_new(self) -> Command {
        let mut command = Command::new(if matches!(self, Self::NoNames) { "env" } else { "unshare" });
        match self {
            Self::Namespace => _ = command.arg("-n"),
            Self::UserNamespace => _ = command.args(["-r", "-n"]),
            Self::NoNames => return command,
        }
        let ip = program("ip").display().to_string();
        command.args(["sh", "-c", "\"$0\" link set lo up && exec \"$@\"", &ip]);
        command
    }

    /// The place in which this process runs.
    fn enter(self, process: u32) -> Command {
        let mut command = Command::new(if matches!(self, Self::NoNames) { "env" } else { "nsenter" });
        match self {
            Self::Namespace => _ = command.arg(format!("--net=/proc/{process}/ns/net")),
            Self::UserNamespace => {
                command.args(["-U", "-n", "--preserve-credentials", "-t", &process.to_string()]);
            }
            Self::NoNames => {}
        }
        command
    }
}

/// A headless browser, driven over a pipe.
struct Browser {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    /// What came while something else was waited for.
    events: VecDeque<Value>,
    session: Option<String>,
    asked: u64,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn start(mut command: Command) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync \
             --disable-background-networking --disable-component-update --disable-dev-shm-usage \
             --remote-debugging-pipe";
        // The pipe is expected at 3 and 4.
        let script = format!("exec \"$@\" {flags} 3<&0 4>&1 0</dev/null 1>&2");
        command.args(["sh", "-c", &script, "sh"]).arg(program("chromium"));
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, messages) = sync_channel(100_000);
        std::thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                if sender.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    return;
                }
            }
        });
        Self { child, input, messages, events: VecDeque::new(), session: None, asked: 0, _profile: profile }
    }

    /// One command of the protocol of developer tools.
    fn ask(&mut self, method: &str, parameters: &Value) -> Value {
        self.asked += 1;
        let mut message = json!({ "id": self.asked, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.input.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let answer =
                self.messages.recv_timeout(SOON).unwrap_or_else(|_| panic!("{method} is not answered"));
            if answer["id"] == self.asked {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.push_back(answer);
        }
    }

    /// Opens a page of its own, and says what it asks for from then on.
    fn open(&mut self, url: &str) {
        let target = self.ask("Target.createTarget", &json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = self.ask("Target.attachToTarget", &json!({ "targetId": target, "flatten": true }));
        self.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Network.enable", "Log.enable", "Runtime.enable"] {
            self.ask(domain, &json!({}));
        }
        let opened = self.ask("Page.navigate", &json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{opened}");
    }

    /// The value of an expression in the page.
    fn value(&mut self, expression: &str) -> Value {
        let done = self.ask("Runtime.evaluate", &json!({ "expression": expression, "returnByValue": true }));
        assert!(done["exceptionDetails"].is_null(), "{expression}: {done}");
        done["result"]["value"].clone()
    }

    /// Clicks what is there, soon.
    #[track_caller]
    fn click(&mut self, selector: &str) {
        let expression =
            format!("(e => e ? (e.click(), true) : false)(document.querySelector({}))", json!(selector));
        eventually(selector, || match self.value(&expression) {
            Value::Bool(true) => Ok(()),
            _ => Err("it is not there".to_owned()),
        });
    }

    /// The text of what is there, soon.
    #[track_caller]
    fn text(&mut self, selector: &str) -> String {
        let expression = format!("document.querySelector({})?.textContent", json!(selector));
        eventually(selector, || match self.value(&expression) {
            Value::String(text) => Ok(text),
            _ => Err("it is not there".to_owned()),
        })
    }

    /// Tries an operation out: the status and the body that the page shows.
    #[track_caller]
    fn try_out(&mut self, operation: &str) -> (String, String) {
        let block = format!("#operations-System-{operation}");
        self.click(&format!("{block} .opblock-summary-control"));
        self.click(&format!("{block} .try-out__btn"));
        self.click(&format!("{block} button.execute"));
        let status = self.text(&format!("{block} .live-responses-table tbody .response-col_status"));
        (status, self.text(&format!("{block} .live-responses-table tbody .response-col_description")))
    }

    /// Everything the page has asked for, and what it complained about.
    fn asked_for(&mut self) -> (BTreeSet<String>, Vec<Value>) {
        self.value("1");
        let (mut urls, mut complaints) = (BTreeSet::new(), Vec::new());
        for event in &self.events {
            match event["method"].as_str() {
                Some("Network.requestWillBeSent") => {
                    urls.insert(event["params"]["request"]["url"].as_str().unwrap().to_owned());
                }
                Some("Log.entryAdded" | "Runtime.exceptionThrown") => {
                    complaints.push(event["params"].clone());
                }
                _ => {}
            }
        }
        (urls, complaints)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked to, it takes its helpers with it.
        let _ = self.input.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let closed = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            self.child.try_wait().is_ok_and(|status| status.is_some())
        });
        if !closed {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[test]
fn c59_the_docs_page_lists_every_operation_and_tries_them_out_with_the_network_cut_off() {
    let cut = Cut::possible();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut command = cut.enter_new();
    command.arg(underpass()).args(["serve", "--store", "memory", "--output", "json", "--data"]).arg(&data);
    command.args(["--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"]);
    let mut server = Process::spawn(format!("serve ({cut:?})"), command);
    let ready = server.expect("ready");
    let (api, docs) = (ready["api"].as_str().unwrap(), ready["docs"].as_str().unwrap());
    assert_eq!(docs, format!("{api}/docs"));
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../openapi/underpass.v1.json");
    let spec: Value = serde_json::from_str(&std::fs::read_to_string(committed).unwrap()).unwrap();
    let mut expected = BTreeSet::new();
    for (path, methods) in spec["paths"].as_object().unwrap() {
        expected.extend(
            methods.as_object().unwrap().keys().map(|method| format!("{} {path}", method.to_uppercase())),
        );
    }
    assert!(expected.len() >= 30, "{expected:?}");

    let mut browser = Browser::start(cut.enter(server.id()));
    browser.open(docs);
    let listed = "JSON.stringify([...document.querySelectorAll('.opblock-summary')].map(block => \
        block.querySelector('.opblock-summary-method').textContent + ' ' + \
        block.querySelector('[data-path]').dataset.path))";
    eventually("all operations are listed", || {
        let text = browser.value(listed);
        let listed: BTreeSet<String> = serde_json::from_str(text.as_str().unwrap()).unwrap();
        if listed == expected { Ok(()) } else { Err(format!("{:?}", listed.symmetric_difference(&expected))) }
    });
    assert_eq!(browser.value("document.title"), "Underpass API");
    let (urls, complaints) = browser.asked_for();
    assert_eq!(urls.iter().filter(|url| !url.starts_with("data:")).collect::<Vec<_>>(), [docs]);
    assert!(complaints.is_empty(), "{complaints:?}");

    // What needs no key works at once; the rest with the key of whoever reads the page.
    let (status, body) = browser.try_out("get_health");
    assert!(status.starts_with("200") && body.contains("\"alive\""), "{status} {body}");
    let (status, body) = browser.try_out("get_metrics");
    assert!(status.starts_with("401") && body.contains("auth.required"), "{status} {body}");
    let token = std::fs::read_to_string(data.join("admin.key")).unwrap();
    browser.click("button.authorize");
    browser.text(".auth-container");
    let typed = format!(
        "(input => (Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(input, {}), \
         input.dispatchEvent(new Event('input', {{ bubbles: true }}))))(document.querySelector('.auth-container input'))",
        json!(token.trim())
    );
    browser.value(&typed);
    browser.click(".auth-btn-wrapper button.authorize");
    browser.click(".auth-btn-wrapper button.btn-done");
    let (status, body) = browser.try_out("get_server");
    assert!(status.starts_with("200") && body.contains("\"memory\""), "{status} {body}");
    let (urls, _) = browser.asked_for();
    for url in urls {
        assert!(url.starts_with("data:") || url.starts_with(&format!("{api}/")), "{url} is somewhere else");
    }
    drop(browser);
    assert_eq!(server.end(), 0);
}
