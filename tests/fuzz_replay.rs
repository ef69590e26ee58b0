//! The corpus of the fuzz targets, and every prefix of each file, on the stable toolchain.

#[path = "fuzz/properties.rs"]
mod properties;

use std::path::Path;

/// Prefixes of long files are thinned out.
const PREFIXES: usize = 200;

#[test]
fn what_fuzzing_has_found_worth_keeping_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    for (name, property) in properties::ALL {
        let mut files = 0;
        for entry in std::fs::read_dir(corpus.join(name)).expect("each target has a corpus") {
            let path = entry.expect("an entry").path();
            let data = std::fs::read(&path).expect("a file of the corpus");
            assert!(data.len() <= 8 << 10, "{} is too large", path.display());
            // Names the file of a failure.
            println!("{}", path.display());
            property(&data);
            for end in (0..data.len()).step_by((data.len() / PREFIXES).max(1)) {
                property(&data[..end]);
            }
            files += 1;
        }
        assert!(files > 0, "the corpus of {name} is empty");
    }
}
