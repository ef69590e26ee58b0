//! What is installed agrees with the daemon: the unit, the Debian package and the manifests for Kubernetes
//! name keys, paths, ports and times that are its own. `packaging/check` installs and runs them.

use std::path::Path;

use looker_feed::config::{self, Config};

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What follows `before` up to the end of the line, everywhere.
fn after<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    let rests = text.split(before).skip(1);
    rests
        .map(|rest| rest.lines().next().unwrap_or_default().trim())
        .collect()
}

/// The configuration of a file and of variables, with files for the secrets that are opened at load.
fn loaded(file: &Path, variables: &[(String, String)]) -> Config {
    let home = tempfile::tempdir().unwrap();
    let secret = home.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef").unwrap();
    let variables = variables.iter().cloned().map(|(name, value)| {
        let mut opened = ["INTAKE__SECRET", "ADMIN__TOKEN", "OUTBOX__PASSWORD"].iter();
        match opened.any(|opened| name.ends_with(&format!("{opened}_FILE"))) {
            true => (name, secret.display().to_string()),
            false => (name, value),
        }
    });
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    config::load(Some(&file), variables).unwrap()
}

/// Names and values of a container's variables.
fn variables(manifest: &str) -> Vec<(String, String)> {
    let of = after(manifest, "- name: LOOKER_FEED_");
    let values = manifest.split("- name: LOOKER_FEED_").skip(1);
    let values = values.map(|rest| after(rest, "value: ").first().copied().unwrap_or_default());
    let pairs = of.into_iter().zip(values).map(|(name, value)| {
        let value = value.trim_matches('"').to_owned();
        (format!("LOOKER_FEED_{name}"), value)
    });
    pairs.collect()
}

fn seconds(manifest: &str, key: &str) -> u64 {
    let found = after(manifest, key);
    let first = found.first().and_then(|text| text.parse().ok());
    first.unwrap_or_else(|| panic!("{key}"))
}

#[test]
fn the_manifests_for_kubernetes_agree_with_the_daemon() {
    let base = "deploy/kubernetes/base";
    let set = read(&format!("{base}/statefulset.yaml"));
    let variables = variables(&set);
    assert!(variables.len() >= 4, "{variables:?}");
    let file = format!("{base}/looker-feed.toml");
    let config = loaded(Path::new(&file), &variables);
    assert!(config.require_secret().is_ok());

    // Ports, which services and policy name too.
    let (hub, admin) = (config.intake.listen, config.admin.listen);
    for (name, listen) in [("hub", hub), ("admin", admin)] {
        assert!(listen.ip().is_unspecified(), "{name}");
        let number = listen.port();
        let port = format!("- name: {name}\n              containerPort: {number}\n");
        assert!(set.contains(&port), "{port}");
        let service = format!("port: {number}\n      targetPort: {name}\n");
        let services = read(&format!("{base}/services.yaml"));
        assert!(services.contains(&service), "{service}");
        assert!(read(&format!("{base}/networkpolicy.yaml")).contains(&format!("- port: {name}\n")));
    }
    // Probes answer without the token that an address for others needs.
    assert_eq!(after(&set, "path: /livez").len(), 2);
    assert_eq!(after(&set, "path: /readyz").len(), 1);
    assert_eq!(after(&set, "port: admin").len(), 3);

    // The image's user and binary; nothing else can be written than the volume.
    let dockerfile = read("Dockerfile");
    let user = after(&dockerfile, "\nUSER ")[0];
    let (uid, gid) = user.split_once(':').unwrap();
    for line in [
        format!("runAsUser: {uid}\n"),
        format!("runAsGroup: {gid}\n"),
        format!("fsGroup: {gid}\n"),
        "runAsNonRoot: true\n".to_owned(),
        "readOnlyRootFilesystem: true\n".to_owned(),
        "allowPrivilegeEscalation: false\n".to_owned(),
        "drop: [ALL]\n".to_owned(),
        "automountServiceAccountToken: false\n".to_owned(),
    ] {
        assert!(set.contains(&line), "{line}");
    }
    let volume = after(&dockerfile, "\nVOLUME ")[0];
    assert!(set.contains(&format!("mountPath: {volume}\n")));
    assert!(config.outbox.path.starts_with(volume) && config.outbox.path != Path::new(volume));
    // The seal key is not where what it seals is.
    let secrets = "/run/secrets/looker-feed";
    assert!(set.contains(&format!("mountPath: {secrets}\n")));
    let key = config.seal.key_file.expect("the key has a place");
    assert!(key.starts_with(secrets), "{}", key.display());

    // It is given the time that its deadlines need, and the room that its bound allows.
    let grace = seconds(&set, "terminationGracePeriodSeconds: ");
    assert!(grace > 2 * config.shutdown.deadline.as_secs());
    let room = seconds(&set.replace("Gi\n", "\n"), "storage: ") << 30;
    assert!(config.outbox.max_bytes + config.outbox.reserve_bytes < room);
    let claims = read(&format!("{base}/poddisruptionbudget.yaml"));
    assert!(claims.contains("maxUnavailable: 1\n"));
}

#[test]
fn the_overlay_for_a_shared_outbox_agrees_with_the_daemon() {
    let (base, overlay) = ("deploy/kubernetes/base", "deploy/kubernetes/shared-outbox");
    let set = read(&format!("{overlay}/statefulset.yaml"));
    let base_set = read(&format!("{base}/statefulset.yaml"));
    let mut variables = variables(&base_set);
    variables.extend(self::variables(&set));
    let file = format!("{base}/looker-feed.toml");
    let config = loaded(Path::new(&file), &variables);
    assert_eq!(config.outbox.backend, config::OutboxBackend::Postgres);
    assert!(config.outbox.password.is_some());

    // The services hear of the end before intake ends, and the pod is given the time for both.
    let probe = base_set.split("readinessProbe:").nth(1).unwrap();
    let heard = seconds(probe, "periodSeconds: ") * seconds(probe, "failureThreshold: ");
    assert!(config.shutdown.notice.as_secs() > heard, "{heard}");
    let grace = seconds(&set, "terminationGracePeriodSeconds: ");
    let needed = config.shutdown.notice + 2 * config.shutdown.deadline;
    assert!(grace > needed.as_secs(), "{needed:?}");

    // No volume outlives a pod, and the database can be reached.
    assert!(set.contains("volumeClaimTemplates: []\n"));
    assert!(set.contains("- name: outbox\n          emptyDir:\n"));
    assert!(seconds(&set, "replicas: ") > 1);
    assert!(read(&format!("{overlay}/networkpolicy.yaml")).contains("- port: 5432\n"));
}

#[test]
fn the_unit_and_the_debian_package_agree_with_each_other() {
    let (unit, cargo) = (read("config/looker-feed.service"), read("Cargo.toml"));
    let variables: Vec<_> = after(&unit, "\nEnvironment=")
        .into_iter()
        .map(|pair| pair.split_once('=').expect("a name and a value"))
        .map(|(name, value)| (name.to_owned(), value.replace("%d", "/run/credentials")))
        .collect();
    assert_eq!(variables.len(), 3);
    let config = loaded(Path::new("config/looker-feed.toml"), &variables);
    let state = format!("/var/lib/{}", after(&unit, "\nStateDirectory=")[0]);
    assert!(config.outbox.path.starts_with(&state));
    let start = after(&unit, "\nExecStart=")[0];
    assert!(start.ends_with("--config /etc/looker-feed/looker-feed.toml"));
    let stop = after(&unit, "\nTimeoutStopSec=")[0];
    assert!(humantime::parse_duration(stop).unwrap() > 2 * config.shutdown.deadline);

    // Every file of the package is there or is made by the script that builds it.
    let assets = cargo.split("assets = [").nth(1).unwrap();
    let assets = assets.split("\n]").next().unwrap();
    let made = read("packaging/build");
    let mut seen = 0;
    for asset in after(assets, "[\"") {
        let source = asset.split('"').next().unwrap();
        seen += 1;
        if let Some(name) = source.strip_prefix("target/packages/") {
            assert!(made.contains(&format!("\"$out/{name}\"")), "{source}");
        } else if source != "target/release/looker-feed" && !source.contains('*') {
            read(source);
        }
    }
    assert!(seen > 8, "{seen}");
    // What the unit is given is what the package makes, for the user that it makes.
    let user = after(&unit, "\nUser=")[0];
    let install = read("packaging/debian/postinst");
    assert!(install.contains(&format!("--home {state} --no-create-home {user}\n")));
    for credential in after(&unit, "\nLoadCredential=") {
        let (name, path) = credential.split_once(':').unwrap();
        assert_eq!(path, format!("/etc/looker-feed/{name}"));
        let names = after(&install, "for name in ")[0];
        let mut names = names.trim_end_matches("; do").split(' ');
        assert!(names.any(|made| made == name), "{name}");
    }
}
