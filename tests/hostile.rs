//! What strangers, broken proxies and hostile documents can send, against the real binary: each gets
//! a clear answer, memory stays flat, the daemon lives, and a good delivery that is made at the same
//! time arrives as if nothing had been.

mod support;

use std::io;
use std::time::Duration;

use looker_feed::config::Secret;
use looker_feed::intake;
use looker_feed::looker::{Answer, Shape, audit};
use looker_feed::model::DataType;
use serde_json::{Value, json};
use support::{Daemon, PATIENCE, SECRET, World, from_url};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

/// The most memory that the daemon may have had at any moment. Hundreds of megabytes are sent at
/// it; for itself and the good deliveries it needs a third of this.
const MOST_MEMORY: u64 = 192 << 20;

/// A daemon between stand-ins, and a good delivery under way while it is attacked.
struct Siege {
    world: World,
    daemon: Daemon,
    shape: Shape,
    _home: tempfile::TempDir,
}

impl Siege {
    async fn new() -> Self {
        let world = World::new(None).await;
        let home = tempfile::tempdir().unwrap();
        let daemon = Daemon::start(
            home.path(),
            &world.endpoint,
            &[("MEMORY__GROUP_BUDGET", "16MiB")],
        );
        let shape = Shape {
            rows: 20_000,
            users: 1_000,
            data_type: DataType::Event,
            seed: 7,
            ..Shape::default()
        };
        Self {
            world,
            daemon,
            shape,
            _home: home,
        }
    }

    /// Attacks while a good delivery is made, and checks that it is not touched.
    async fn stand<T>(&self, attack: impl Future<Output = T>) -> T {
        let url = self.world.looker.publish(self.shape.clone());
        let good = self.daemon.execute(from_url(url, DataType::Event));
        let (answer, outcome) = tokio::join!(good, attack);
        assert!(answer.is_success(), "{answer:?}\n{}", self.daemon.log());
        self.daemon.settled().await;
        let accepted = self.world.mparticle.ledger();
        let ours: Vec<_> = accepted
            .iter()
            .filter(|accepted| &*accepted.key == "key-of-the-account")
            .map(|accepted| &accepted.batch[..])
            .collect();
        let rows = audit(&self.shape, ours).unwrap_or_else(|mismatch| panic!("{mismatch}"));
        assert_eq!(rows, self.shape.rows);
        let peak = self.peak();
        assert!(peak < MOST_MEMORY, "{peak} bytes of memory");
        let log = self.daemon.log();
        assert!(!log.contains("panicked"), "{log}");
        outcome
    }

    /// The most memory that the daemon has had, in bytes.
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.daemon.pid()));
        let status = status.expect("the daemon lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        1024 * kilobytes.unwrap().trim().parse::<u64>().unwrap()
    }

    async fn connect(&self) -> TcpStream {
        let address = self.daemon.hub.socket_addrs(|| None).unwrap()[0];
        TcpStream::connect(address).await.unwrap()
    }

    /// Sends bytes, as many of them as are taken, and returns what is answered until the end.
    async fn raw(&self, bytes: &[u8]) -> String {
        self.exchange(bytes, false).await
    }

    /// The same, and ends the stream behind the bytes.
    async fn raw_cut(&self, bytes: &[u8]) -> String {
        self.exchange(bytes, true).await
    }

    async fn exchange(&self, bytes: &[u8], cut: bool) -> String {
        let (mut read, mut write) = self.connect().await.into_split();
        let send = async {
            // It may be refused before all is sent.
            let _ = write.write_all(bytes).await;
            if cut {
                let _ = write.shutdown().await;
            }
            write
        };
        let receive = async {
            let mut answer = Vec::new();
            let mut piece = vec![0; 64 << 10];
            // What was not read turns the end into a reset.
            while let Ok(length @ 1..) = read.read(&mut piece).await {
                answer.extend_from_slice(&piece[..length]);
            }
            String::from_utf8(answer).unwrap()
        };
        let both = async { tokio::join!(send, receive).1 };
        tokio::time::timeout(PATIENCE, both)
            .await
            .expect("an answer, or the end")
    }

    /// A document that a Looker serves; what Looker is told of it.
    async fn document(&self, document: Vec<u8>) -> String {
        let url = self.world.looker.publish_bytes(document);
        told(&self.from(url).await)
    }

    async fn from(&self, url: Url) -> Answer {
        let mut execute = from_url(url, DataType::Event);
        execute.api_key = "hostile".to_owned();
        self.daemon.execute(execute).await
    }
}

/// What was not answered as it should be, so that a table is seen whole.
#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    fn note(&mut self, holds: bool, what: &str, found: &str) {
        if !holds {
            let found: String = found.chars().take(600).collect();
            self.0.push(format!("{what}: {found:?}"));
        }
    }

    fn none(self) {
        assert!(self.0.is_empty(), "{:#?}", self.0);
    }
}

fn token() -> String {
    let secret = Secret::new(SECRET.to_owned());
    format!("Token token=\"{}\"", intake::new_key(&secret).unwrap())
}

/// An execute request with a valid key and these headers and bytes.
fn execute(headers: &str, body: &str) -> Vec<u8> {
    request("POST /actions/mparticle/execute HTTP/1.1", headers, body)
}

fn request(line: &str, headers: &str, body: &str) -> Vec<u8> {
    let token = token();
    format!("{line}\r\nhost: feed.test\r\nauthorization: {token}\r\n{headers}\r\n{body}").into()
}

/// The message of a failed delivery, or that it was taken.
fn told(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    if answer.is_success() {
        return format!("taken: {}", answer.message().unwrap_or_default());
    }
    answer.message().unwrap()
}

/// A document with one tagged column and these bytes as its rows.
fn rows(rows: impl AsRef<[u8]>) -> Vec<u8> {
    let head = br#"{"fields":{"dimensions":[{"name":"u.id","tags":["mp_customer_id"]},{"name":"u.x","tags":["mp_custom_attribute"]}]},"data":["#;
    [&head[..], rows.as_ref(), b"]}"].concat()
}

/// A row whose second cell holds these bytes.
fn cell(value: impl AsRef<[u8]>) -> Vec<u8> {
    let row = [
        br#"{"u.id":{"value":"a"},"u.x":{"value":"#,
        value.as_ref(),
        b"}}",
    ];
    rows(row.concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_break_the_protocol_get_one_clear_answer_each() {
    let siege = Siege::new().await;
    let form = "POST /actions/mparticle/form HTTP/1.1";
    let behind = "GET /status HTTP/1.1\r\nhost: x\r\n\r\n";
    let many: String = (0..100).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(10 << 20));
    let ended = format!("0\r\n\r\n{behind}");
    let path = format!("POST /{} HTTP/1.1", "y".repeat(10 << 20));
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n";
    let mut cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "a NUL in the path",
            request("POST /\0 HTTP/1.1", "", ""),
            "400",
        ),
        (
            "a version from the future",
            request("POST / HTTP/9.9", "", ""),
            "400",
        ),
        (
            "the beginning of HTTP/2",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            "",
        ),
        ("bytes", hello.to_vec(), "400"),
        ("a header of 10 MB", request(form, &long, ""), "431"),
        ("a hundred headers", request(form, &many, ""), "431"),
        ("a path of 10 MB", request(&path, "", ""), "4"),
    ];
    for case in [
        "a length and chunks | content-length: 4\r\ntransfer-encoding: chunked",
        "chunks and a length | transfer-encoding: chunked\r\ncontent-length: 4",
    ] {
        let (what, headers) = case.split_once(" | ").unwrap();
        cases.push((
            what,
            request(form, &format!("{headers}\r\n"), &ended),
            "200",
        ));
    }
    for case in [
        "two lengths | content-length: 4\r\ncontent-length: 40",
        "a list of lengths | content-length: 4, 40",
        "a length with a sign | content-length: +4",
        "a length below zero | content-length: -1",
        "a length beyond all numbers | content-length: 99999999999999999999999",
        "an unknown transfer coding | transfer-encoding: xchunked",
        "chunks that are not the last coding | transfer-encoding: chunked, identity",
        "a space before the colon | transfer-encoding : chunked",
        "a folded header | transfer-encoding:\r\n chunked",
        "a NUL in a header | x: a\0b",
    ] {
        let (what, headers) = case.split_once(" | ").unwrap();
        cases.push((
            what,
            request(form, &format!("{headers}\r\n"), behind),
            "400",
        ));
    }
    siege
        .stand(async {
            let mut wrong = Wrong::default();
            for (what, bytes, status) in &cases {
                let answer = siege.raw(bytes).await;
                let begin = if status.is_empty() { "" } else { "HTTP/1.1 " };
                let begins = answer.starts_with(&format!("{begin}{status}"));
                wrong.note(begins, what, &answer);
                let answers = answer.matches("HTTP/1.1").count();
                wrong.note(answers == usize::from(!status.is_empty()), what, &answer);
            }
            wrong.none();
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_break_off_or_are_not_framed_fail_with_a_sentence() {
    let siege = Siege::new().await;
    let trailers: String = (0..20_000).map(|n| format!("x-{n}: y\r\n")).collect();
    let chunked = "transfer-encoding: chunked\r\n";
    let cut = "The connection from Looker was cut before the request was complete.";
    let extension = format!("5;{}\r\n{{\"a\":\r\n", "x".repeat(1 << 20));
    let deep = "[".repeat(1_000_000);
    let deep_section = format!("{{\"scheduled_plan\":{deep}");
    let wide_section = format!("{{\"x\":\"{}\"}}", "y".repeat(100 << 20));
    let long_key = format!("{{\"{}\":1}}", "k".repeat(2_000_000));
    let deep_push = format!("{{\"attachment\":{{\"data\":{deep}");
    let bad_base64 = r#"{"attachment":{"mimetype":"application/json;base64","data":"%%%%"}}"#;
    let trailers = format!("2\r\n{{\"\r\n0\r\n{trailers}\r\n");
    let beyond = "fffffffffffffffff\r\n{}\r\n0\r\n\r\n";
    let short = "content-length: 1000\r\n";
    let cases = [
        (
            "a chunk size that is none",
            chunked,
            "zz\r\n{}\r\n0\r\n\r\n",
        ),
        ("a chunk size beyond all numbers", chunked, beyond),
        ("a negative chunk size", chunked, "-2\r\n{}\r\n0\r\n\r\n"),
        (
            "a chunk longer than it says",
            chunked,
            "1\r\n{}\r\n0\r\n\r\n",
        ),
        ("a chunk that is cut", chunked, "ff\r\n{\"type\":"),
        ("an extension of 1 MB", chunked, &extension),
        ("twenty thousand trailers", chunked, &trailers),
        ("a body shorter than it says", short, "{\"type\":"),
    ];
    let (too_deep, too_large) = ("nested too deeply", "more than 1048576 bytes");
    let twice = "{\"data\":{},\"data\":{}}";
    let sized = [
        ("nothing", "", "the request is empty"),
        ("two requests", "{} {}", "something follows"),
        ("no JSON", "\0\0\0\0", "not a JSON object"),
        ("NaN", "{\"data\":NaN", "no NaN"),
        ("nesting of a million", &deep_section, too_deep),
        ("pushed nesting of a million", &deep_push, too_deep),
        ("a section of 100 MB", &wide_section, too_large),
        ("a key of two million letters", &long_key, too_large),
        ("no base64", bad_base64, "not valid base64"),
        ("no escape", "{\"data\":\"\\uZZZZ\"}", "invalid escape"),
        ("two of one section", twice, "two `data` sections"),
    ];
    siege
        .stand(async {
            let mut wrong = Wrong::default();
            for (what, headers, body) in cases {
                let answer = siege.raw_cut(&execute(headers, body)).await;
                let failed = answer.contains(r#""success":false"#);
                wrong.note(failed && answer.starts_with("HTTP/1.1 200 "), what, &answer);
                wrong.note(answer.contains(cut), what, &answer);
            }
            for (what, body, sentence) in sized {
                let length = format!("content-length: {}\r\nconnection: close\r\n", body.len());
                let answer = siege.raw(&execute(&length, body)).await;
                let failed = answer.contains(r#""success":false"#);
                wrong.note(failed && answer.contains(sentence), what, &answer);
            }
            wrong.none();
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_not_what_they_should_be_are_refused_or_carried_as_they_are() {
    let siege = Siege::new().await;
    let million = |text: &str| text.repeat(1_000_000);
    let columns: Vec<Value> = (0..100_000)
        .map(|n| json!({"name": format!("u.c{n}"), "tags": ["mp_custom_attribute"]}))
        .collect();
    let columns = json!({"fields": {"dimensions": columns}, "data": []}).to_string();
    let key = million("k");
    let key = format!(r#"{{"u.id":{{"value":"a"}},"{key}":{{"value":1}}}}"#);
    let utf16 = "{\"data\":[]}".encode_utf16().flat_map(u16::to_be_bytes);
    let deep_header = [b"{\"x\":".to_vec(), million("[").into()].concat();
    let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03".to_vec();
    let two_lists = [&rows("")[..rows("").len() - 1], br#","data":[]}"#].concat();
    let behind = [cell("1"), b"{}".to_vec()].concat();
    let html = r#""<script>alert(1)</script>""#;
    let too_deep = "nested too deeply";
    let bom = [&b"\xef\xbb\xbf"[..], &cell("1")].concat();
    let twice = rows(r#"{"u.id":{"value":"a"},"u.id":{"value":"b"}}"#);
    let taken = "taken: 1 rows accepted";
    let cases = vec![
        ("nesting of a million", cell(million("[")), too_deep),
        ("nested objects", cell(million("{\"a\":")), too_deep),
        ("nesting in the header", deep_header, too_deep),
        ("many columns", columns.into(), "more than 5000 columns"),
        ("NaN", cell("NaN"), "no NaN"),
        ("Infinity", cell("-Infinity"), "not a JSON number"),
        ("a number with a plus", cell("+1"), "a value is missing"),
        ("octal", cell("012"), "comma or a closing bracket"),
        ("a raw NUL", cell(b"\"a\0b\""), "raw control character"),
        ("a NUL between", cell(b"\0"), "a value is missing"),
        ("a broken escape", cell(r#""\u12G4""#), "invalid escape"),
        ("half a character", cell(b"\"\xe2\x82\""), "not valid UTF-8"),
        (
            "an overlong slash",
            cell(b"\"\xc0\xaf\""),
            "not valid UTF-8",
        ),
        ("UTF-16", utf16.collect(), "not a JSON object"),
        ("gzip", gzip, "not a JSON object"),
        ("two data lists", two_lists, "two `data` lists"),
        ("something behind it", behind, "follows after the end"),
        ("a comment", rows("/* */"), "a value is missing"),
        (
            "a comma too many",
            rows(r#"{"u.id":{"value":"a"}},"#),
            "a value is missing",
        ),
        // And what is strange, but JSON.
        ("a byte order mark", bom, taken),
        ("an escaped NUL", cell(r#""a\u0000b""#), taken),
        ("a lone surrogate", cell(r#""a\ud800b""#), taken),
        (
            "a surrogate pair the wrong way round",
            cell(r#""\udc00\ud83d""#),
            taken,
        ),
        (
            "a number of ten thousand digits",
            cell("9".repeat(10_000)),
            taken,
        ),
        ("a number beyond all floats", cell("1e400"), taken),
        ("the same key twice", twice, taken),
        (
            "a key of a million letters that is not a column",
            rows(key),
            taken,
        ),
        ("a string with HTML", cell(html), taken),
    ];
    let count = cases.iter().filter(|(.., told)| *told == taken).count();
    siege
        .stand(async {
            let mut wrong = Wrong::default();
            for (what, document, sentence) in cases {
                let told = siege.document(document).await;
                wrong.note(told.contains(sentence) && told.len() < 1_000, what, &told);
            }
            wrong.none();
        })
        .await;
    // Each row that was taken has arrived, one of them without the number that no float holds.
    let deliveries = siege.daemon.deliveries().await;
    assert_eq!(deliveries.len(), count + 1);
    for delivery in deliveries.iter().filter(|delivery| delivery.rows_in == 1) {
        assert_eq!(delivery.rows.delivered, 1, "{delivery:#?}");
    }
}

/// Serves `prefix`, then `filler` again and again until `bytes` have gone or nobody takes them.
async fn endless(prefix: Vec<u8>, filler: &'static str, bytes: u64) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/downloads/x", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await?;
        stream.write_all(&prefix).await?;
        let filler = filler.repeat((256 << 10) / filler.len());
        let mut sent = 0;
        while sent < bytes {
            stream.write_all(filler.as_bytes()).await?;
            sent += filler.len() as u64;
        }
        io::Result::Ok(())
    });
    url.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_end_is_given_up_and_takes_no_memory() {
    let siege = Siege::new().await;
    let ok = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
    let body = |begin: &[u8]| [&ok[..], begin].concat();
    let open = |end: &[u8]| {
        let all = cell(end);
        // Without the brackets that end it.
        body(&all[..all.len() - 4])
    };
    const GIGABYTE: u64 = 1 << 30;
    let large = "larger than 4194304 bytes";
    let tags = body(br#"{"fields":{"dimensions":[{"name":"a","tags":["b""#);
    let header = body(br#"{"x":[1"#);
    let head = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
    let gzip = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n\x1f\x8b".to_vec();
    let elsewhere = b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/latest/\r\n\r\n";
    let cases: Vec<(&str, Vec<u8>, &'static str, u64, &str)> = vec![
        ("a cell of 1 GB", open(b"\""), "x", GIGABYTE, large),
        ("a number of 1 GB", open(b"1"), "1", GIGABYTE, large),
        ("a row of 1 GB of spaces", open(b""), " ", GIGABYTE, large),
        (
            "1 GB of tags",
            tags,
            r#","b""#,
            GIGABYTE,
            "is larger than 8388608 bytes",
        ),
        (
            "64 MB of header that is skipped",
            header,
            ",1",
            64 << 20,
            "cut off",
        ),
        (
            "64 MB of white space",
            body(b""),
            " \n",
            64 << 20,
            "empty document",
        ),
        (
            "a head of 1 GB",
            head,
            "y",
            GIGABYTE,
            "gave no valid answer",
        ),
        (
            "a compressed bomb",
            gzip,
            "\0",
            GIGABYTE,
            "an encoding that was not asked for",
        ),
        (
            "the metadata service",
            elsewhere.to_vec(),
            "\0",
            0,
            "status code: 302",
        ),
    ];
    siege
        .stand(async {
            let mut wrong = Wrong::default();
            for (what, prefix, filler, bytes, sentence) in cases {
                let url = endless(prefix, filler, bytes).await;
                let told = told(&siege.from(url).await);
                wrong.note(told.contains(sentence), what, &told);
            }
            let metadata = "https://169.254.169.254/latest/meta-data/";
            for (url, sentence) in [
                ("http://169.254.169.254/latest/meta-data/", "is not https"),
                (metadata, "may not fetch rows"),
                ("https://[::ffff:10.0.0.1]/", "may not fetch rows"),
                ("file:///etc/passwd", "not a valid url"),
                ("gopher://127.0.0.1/x", "is not"),
                ("https://127.0.0.1@evil.example/", "not a valid url"),
            ] {
                let told = told(&siege.from(url.parse().unwrap()).await);
                wrong.note(told.contains(sentence), url, &told);
            }
            wrong.none();
        })
        .await;
    assert_eq!(siege.daemon.deliveries().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_idle_connections_keeps_nobody_out() {
    let siege = Siege::new().await;
    let status = b"GET /status HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut idle = Vec::new();
    for n in 0..600 {
        let mut stream = siege.connect().await;
        match n % 3 {
            0 => {}
            1 => stream.write_all(b"POST /actions").await.unwrap_or_default(),
            _ => stream.write_all(status).await.unwrap_or_default(),
        }
        idle.push(stream);
    }
    siege
        .stand(async {
            // They come back as fast as they are sent away.
            for _ in 0..300 {
                idle.push(siege.connect().await);
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_of_strangers_reaches_log_and_page_only_as_text() {
    let siege = Siege::new().await;
    let title = "<script>alert(1)</script>\u{1b}[31m\u{9b}2J\r\nERROR forged=1\0\u{202e}";
    let body = json!({
        "type": "query",
        "scheduled_plan": {
            "title": title, "url": "javascript:alert(1)", "scheduled_plan_id": title,
        },
        "data": {"apiKey": "hostile", "apiSecret": "s"},
        "form_params": {"data_type": "event_data", "environment": "development"},
        "attachment": {"mimetype": "application/json", "data": String::from_utf8(cell("1")).unwrap()},
    })
    .to_string();
    let strange = "x-looker-webhook-id: \u{9b}31m<b>\r\nx-looker-instance: \u{1b}\r\n";
    let length = format!("content-length: {}\r\nconnection: close\r\n", body.len());
    siege
        .stand(async {
            // An escape character is not a part of a header.
            let answer = siege
                .raw(&execute(&format!("{strange}{length}"), &body))
                .await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
            for webhook in [
                "\u{9b}31m<b>".to_owned(),
                "x".repeat(20_000),
                "a b".to_owned(),
                String::new(),
            ] {
                let headers = format!("x-looker-webhook-id: {webhook}\r\n{length}");
                let answer = siege.raw(&execute(&headers, &body)).await;
                assert!(answer.contains(r#""success":true"#), "{webhook}: {answer}");
            }
            // A stranger's path and key.
            let probe = "POST /\u{9b}31m HTTP/1.1\r\nhost: x\r\nauthorization: \u{9b}31m\r\n\r\n";
            siege.raw(probe.as_bytes()).await;
        })
        .await;
    let log = siege.daemon.log();
    for raw in [
        "<script>", "<b>", "\u{1b}", "\u{9b}", "\r", "forged", "\0", "\u{202e}", "hostile",
    ] {
        assert!(!log.contains(raw), "{raw:?} in {log}");
    }
    // The page is the same whatever was sent; data comes as JSON, and no browser may guess.
    let (status, page) = siege.daemon.call("GET", "/", "").await;
    assert_eq!(status, 200);
    assert!(!String::from_utf8_lossy(&page).contains("alert(1)"));
    let (_, json) = siege.daemon.call("GET", "/api/v1/deliveries", "").await;
    let raw = String::from_utf8(json.to_vec()).unwrap();
    for control in ["\u{1b}", "\r", "\0"] {
        assert!(!raw.contains(control), "{control:?} in {raw}");
    }
    let titles = siege.daemon.deliveries().await;
    assert_eq!(titles.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_drips_holds_only_itself_up() {
    let siege = Siege::new().await;
    let mut drip = siege.connect().await;
    let head = execute("transfer-encoding: chunked\r\n", "");
    drip.write_all(&head).await.unwrap();
    siege
        .stand(async {
            for _ in 0..50 {
                drip.write_all(b"1\r\n \r\n").await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    drip.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    drip.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("the request is empty"), "{answer}");
}
