//! TLS on every side of the real binary, with an authority made for the test.

mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use looker_feed::config::Secret;
use looker_feed::intake;
use looker_feed::looker::{Shape, audit};
use looker_feed::model::DataType;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, ServerConfig};
use support::{Daemon, PATIENCE, SECRET, World, from_url};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// An authority of our own, and its certificate as a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: tempfile::TempDir,
    file: PathBuf,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        std::fs::write(&file, issuer.pem()).unwrap();
        Self {
            issuer,
            directory,
            file,
        }
    }

    /// Certificate and key for 127.0.0.1, as PEM.
    fn server(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        // As certificate tools do it: never half a file.
        let draft = path.with_extension("new");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(&draft, &path).unwrap();
        path
    }

    /// Opens TLS in front of a plain server; returns where.
    async fn in_front_of(&self, plain: SocketAddr) -> SocketAddr {
        let (certificate, key) = self.server();
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(provider());
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth();
        let config = config.with_single_cert(vec![certificate], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (outer, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // A client that does not trust us ends here.
                    let mut outer = acceptor.accept(outer).await?;
                    let mut inner = TcpStream::connect(plain).await?;
                    tokio::io::copy_bidirectional(&mut outer, &mut inner).await
                });
            }
        });
        address
    }

    async fn connect(
        &self,
        address: SocketAddr,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn shape() -> Shape {
    Shape {
        rows: 500,
        users: 50,
        data_type: DataType::Event,
        ..Shape::default()
    }
}

fn plain_address(url: &str) -> SocketAddr {
    let url: url::Url = url.parse().unwrap();
    url.socket_addrs(|| None).unwrap()[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_and_go_over_tls_under_an_authority_of_ones_own() {
    let authority = Authority::new();
    let world = World::new(None).await;
    let published = world.looker.publish(shape());
    let looker = plain_address(published.as_str());
    let looker = authority.in_front_of(looker).await;
    let mparticle = authority.in_front_of(plain_address(&world.endpoint)).await;
    let home = tempfile::tempdir().unwrap();
    let endpoint = format!("https://{mparticle}/v2");
    let file = text(&authority.file);
    let settings = ["LOOKER__CA_FILE", "MPARTICLE__CA_FILE"].map(|key| (key, &*file));
    let daemon = Daemon::start(home.path(), &endpoint, &settings);
    let url = format!("https://{looker}{}", published.path());
    daemon.accepts(url.parse().unwrap(), DataType::Event).await;
    daemon.settled().await;
    let batches = world.batches();
    let rows = audit(&shape(), batches.iter().map(|batch| &batch[..]));
    assert_eq!(rows.unwrap_or_else(|mismatch| panic!("{mismatch}")), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_vouches_for_is_not_trusted() {
    let [ours, theirs] = [Authority::new(), Authority::new()];
    let world = World::new(None).await;
    let published = world.looker.publish(shape());
    let looker = theirs.in_front_of(plain_address(published.as_str())).await;
    let file = text(&ours.file);
    let daemon = world.daemon(&[("LOOKER__CA_FILE", &file)]);
    let url = format!("https://{looker}{}", published.path());
    let execute = from_url(url.parse().unwrap(), DataType::Event);
    let answer = daemon.execute(execute).await;
    let message = answer.message().unwrap();
    assert!(!answer.is_success(), "{message}");
    assert!(message.contains("could not connect to Looker"), "{message}");
    assert!(daemon.log().contains("certificate"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_goes_to_an_address_under_an_authority_of_ones_own() {
    let [ours, theirs] = [Authority::new(), Authority::new()];
    let world = World::new(None).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = listener.local_addr().unwrap();
    let (sender, mut heard) = tokio::sync::mpsc::channel(10);
    let hear = move |body: String| async move { sender.send(body).await.unwrap() };
    let router = axum::Router::new().fallback(hear);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let url = format!("https://{}/hook", ours.in_front_of(plain).await);
    for (authority, trusted) in [(&theirs, false), (&ours, true)] {
        let file = text(&authority.file);
        let settings = [("NOTIFY__WEBHOOK_URL", &*url), ("NOTIFY__CA_FILE", &*file)];
        let daemon = world.daemon(&settings);
        let document = world.looker.publish(shape());
        daemon.accepts(document, DataType::Event).await;
        if trusted {
            let message = tokio::time::timeout(PATIENCE, heard.recv()).await;
            let message = message.expect("it comes").expect("it is told");
            assert!(message.contains("delivery_finished"), "{message}");
        } else {
            daemon.says("a callback could not be sent").await;
            assert!(heard.try_recv().is_err());
        }
        assert!(daemon.terminate().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hub_serves_tls_and_takes_a_new_certificate_without_a_restart() {
    let authority = Authority::new();
    let (certificate, key) = authority.server();
    let cert = text(&authority.write("cert.pem", &certificate));
    let key = text(&authority.write("key.pem", &key));
    let world = World::new(None).await;
    let daemon = world.daemon(&[("INTAKE__TLS_CERT", &cert), ("INTAKE__TLS_KEY", &key)]);
    assert_eq!(daemon.hub.scheme(), "https");
    let address = daemon.hub.socket_addrs(|| None).unwrap()[0];

    let token = intake::new_key(&Secret::new(SECRET.to_owned())).unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: x\r\nauthorization: Token token=\"{token}\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let both = [
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
    ];
    for (version, name) in both {
        let mut stream = authority.connect(address, &[version]).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(name));
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        // Looker is told addresses that it can reach.
        let url = format!("\"url\":\"https://{address}/actions/mparticle/execute\"");
        assert!(answer.contains(&url), "{answer}");
    }
    // Plain HTTP and older TLS get nothing.
    let hello = b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x02";
    let old = [&hello[..], &[7; 32], &[0, 0, 4, 0, 0x2f, 0, 0x35, 1, 0]].concat();
    for bytes in [request.as_bytes(), &old] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
        // At most an alert.
        assert!(answer.len() <= 7, "{answer:?}");
    }

    let shown = async || {
        let stream = authority.connect(address, rustls::ALL_VERSIONS).await;
        let stream = stream.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let until = async |wanted: &str| {
        let wanted = CertificateDer::from_pem_slice(wanted.as_bytes()).unwrap();
        let seen = async || (shown().await == wanted).then_some(());
        daemon.until("the new certificate is shown", seen).await;
    };
    until(&certificate).await;
    // A new certificate whose key has not come yet is not taken.
    let (next, next_key) = authority.server();
    authority.write("cert.pem", &next);
    let noted = async || {
        shown().await;
        daemon
            .log()
            .contains("the one before stays in use")
            .then_some(())
    };
    daemon.until("it is noted", noted).await;
    until(&certificate).await;
    authority.write("key.pem", &next_key);
    until(&next).await;
}

#[test]
fn files_that_are_no_certificates_are_named_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let junk = directory.path().join("junk.pem");
    std::fs::write(&junk, "not PEM at all").unwrap();
    let junk = text(&junk);
    let outbox = text(&directory.path().join("outbox"));
    let none = text(&directory.path().join("none.pem"));
    let key = ("INTAKE__TLS_KEY", &*junk);
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[("LOOKER__CA_FILE", &none)], "looker.ca_file"),
        (&[("MPARTICLE__CA_FILE", &junk)], "mparticle.ca_file"),
        (&[("INTAKE__TLS_CERT", &junk), key], "intake.tls_cert"),
        (&[("INTAKE__TLS_CERT", &none), key], "intake.tls_cert"),
    ];
    for (settings, wanted) in cases {
        let base = [
            ("INTAKE__SECRET", SECRET),
            ("INTAKE__LISTEN", "127.0.0.1:0"),
            ("ADMIN__LISTEN", "127.0.0.1:0"),
            ("OUTBOX__RESERVE_BYTES", "1MiB"),
            ("OUTBOX__PATH", &outbox),
        ];
        let all: Vec<_> = base.iter().chain(settings).copied().collect();
        let (code, out, err) = support::run(&["serve"], &all);
        assert_eq!(code, Some(64), "{err}");
        let (_, file) = settings[0];
        assert!(err.contains(wanted), "{wanted}: {err}");
        assert!(err.contains(file), "{file}: {err}");
        assert!(out.is_empty(), "{out}");
        assert!(!Path::new(&outbox).exists(), "nothing was begun");
        let (code, out, checked) = support::run(&["check-config"], &all);
        assert_eq!((code, &out[..], checked), (Some(64), "", err));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn send_says_at_once_that_a_certificate_is_not_trusted() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let plain = format!("127.0.0.1:{}", daemon.hub.port().unwrap());
    let address = Authority::new().in_front_of(plain.parse().unwrap()).await;
    let file = home.path().join("a.json");
    std::fs::write(&file, "{}").unwrap();
    let (file, hub) = (text(&file), format!("https://{address}"));
    let arguments = ["send", &file, "--api-key", "k", "--hub", &hub];
    let settings = [("INTAKE__SECRET", SECRET), ("API_SECRET", "s")];
    let (code, _, err) = support::run(&arguments, &settings);
    assert_eq!(code, Some(1), "{err}");
    let start = format!("looker-feed: the certificate of the hub at {hub}");
    assert!(err.starts_with(&start), "{err}");
    assert!(err.contains("UnknownIssuer"), "{err}");
    assert!(!err.contains("no hub answers"), "{err}");
}
