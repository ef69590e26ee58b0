//! The pages as they stand in the binary: nothing inline, nothing from elsewhere, no markup made of
//! text.

use super::scripted::Running;
use crate::control::guard::is_page;
use crate::control::page::{ASSETS, HTML};

#[tokio::test]
async fn each_page_has_an_address_and_all_parts_are_served_with_their_types() {
    let admin = Running::start().await;
    for (path, up) in [
        ("/", "./"),
        ("/deliveries", "./"),
        ("/deliveries/0198f0c0000000000000000000000001", "../"),
        ("/schedules", "./"),
        ("/destinations", "./"),
        ("/dead-letters", "./"),
        ("/rejected-rows", "./"),
        ("/configuration", "./"),
        ("/audit", "./"),
        ("/failed-deliveries", "./"),
    ] {
        assert!(is_page(path), "{path}");
        let response = admin.open("GET", path, &[], "").await;
        assert_eq!(
            response.headers()["content-type"],
            "text/html; charset=utf-8"
        );
        let (status, text) = admin.get(path).await;
        assert_eq!((status, text), (200, HTML.replace("{root}", up)), "{path}");
    }
    for (name, kind, text) in ASSETS {
        let path = format!("/assets/{name}");
        let response = admin.open("GET", &path, &[], "").await;
        assert_eq!(response.headers()["content-type"], *kind);
        assert_eq!(admin.get(&path).await, (200, (*text).to_owned()));
    }
    for path in [
        "/assets/none.js",
        "/assets/..%2fview.rs",
        "/deliveries/a/b",
        "/page.js",
    ] {
        assert_eq!(admin.get(path).await.0, 404, "{path}");
    }
    admin.stop().await;
}

fn scripts() -> impl Iterator<Item = (&'static str, &'static str)> {
    let all = ASSETS.iter().map(|(name, _, text)| (*name, *text));
    all.filter(|(name, _)| name.ends_with(".js"))
}

#[test]
fn every_file_of_the_page_is_served_and_every_import_is_there() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/control/page");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let served = ASSETS.iter().any(|(asset, ..)| *asset == name);
        assert!(served || name == "index.html", "{name} is not served");
    }
    for (name, text) in scripts() {
        for import in text.split(" from './").skip(1) {
            let import = import.split('\'').next().unwrap();
            assert!(scripts().any(|(one, _)| one == import), "{name}: {import}");
        }
    }
}

#[test]
fn nothing_is_inline_and_nothing_comes_from_elsewhere() {
    assert!(!HTML.contains(" style="), "inline style");
    assert!(!HTML.contains("<style"), "inline style");
    assert_eq!(
        HTML.matches("<script").count(),
        HTML.matches("<script src=\"{root}assets/").count()
    );
    for handler in [
        " onclick",
        " onload",
        " onerror",
        " onsubmit",
        "javascript:",
    ] {
        assert!(!HTML.contains(handler), "{handler}");
    }
    for (name, text) in ASSETS
        .iter()
        .map(|(name, _, text)| (*name, *text))
        .chain([("html", HTML)])
    {
        // The one address that stands in the files is the name of SVG's namespace.
        let text = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("://"), "{name} names an address");
        assert!(
            !text.contains("url(") && !text.contains("@import"),
            "{name} loads something"
        );
    }
}

#[test]
fn text_never_becomes_markup() {
    for (name, text) in scripts() {
        let ways = "innerHTML outerHTML insertAdjacentHTML document.write DOMParser \
            createContextualFragment srcdoc eval( Function( import(";
        for way in ways.split(' ') {
            assert!(!text.contains(way), "{name}: {way}");
        }
        // Attributes and addresses are set in one place, which says which ones may be set.
        let one_place = name == "dom.js";
        for way in [".setAttribute(n", ".href = ", "createElement("] {
            let download = name == "api.js" && !way.starts_with(".set");
            assert!(
                one_place || download || !text.contains(way),
                "{name}: {way}"
            );
        }
    }
}

#[test]
fn all_that_the_scripts_look_for_by_name_is_in_the_shell() {
    for (name, text) in scripts() {
        for id in text.split("$('").skip(1) {
            let id = id.split('\'').next().unwrap();
            assert!(HTML.contains(&format!("id=\"{id}\"")), "{name}: #{id}");
        }
    }
}
