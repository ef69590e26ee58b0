//! Generated, damaged and arbitrary documents in any chunks.

use looker_feed::decode::{Limits, Problem};
use proptest::prelude::*;

use super::tape::Tape;
use super::{cases, decode, reference};

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn any_document_in_any_chunks_equals_what_serde_json_says(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        sizes in proptest::collection::vec(1_usize..80, 1..8),
    ) {
        let document = Tape::new(&bytes).document();
        let text = document.text.as_bytes();
        let columns: Vec<&str> = document.columns.iter().map(String::as_str).collect();
        let want = reference(text, &columns);
        for sizes in [&sizes[..], &[1], &[usize::MAX]] {
            let got = decode(text, sizes, &columns, Limits::default());
            prop_assert_eq!(&got.error, &None);
            prop_assert_eq!(&got.rows, &want);
            let header = got.header.unwrap();
            let names: Vec<&str> = header.fields.iter().map(|field| &*field.name).collect();
            prop_assert_eq!(&names, &columns);
        }
        // Without a selection, rows are still found.
        let got = decode(text, &sizes, &[], Limits::default());
        prop_assert_eq!(got.rows.len(), want.len());
    }

    #[test]
    fn every_prefix_is_an_error_with_the_right_number_of_rows(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        size in 1_usize..50,
    ) {
        let document = Tape::new(&bytes).document();
        let text = document.text.trim_end().as_bytes();
        for end in 0..text.len() {
            let got = decode(&text[..end], &[size], &["a"], Limits::default());
            let rows = document.row_ends.iter().filter(|&&row_end| row_end <= end).count();
            let error = got.error.unwrap();
            let expected = if text[..end].trim_ascii().is_empty() { Problem::Empty } else { Problem::Truncated };
            prop_assert_eq!(error.problem, expected);
            prop_assert_eq!((error.rows, error.offset), (rows as u64, end as u64));
            prop_assert_eq!(got.rows.len(), rows);
        }
    }

    #[test]
    fn damaged_documents_end_the_same_way_however_they_are_cut(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        damage in proptest::collection::vec((any::<u16>(), 0_u8..4, any::<u8>()), 1..4),
        sizes in proptest::collection::vec(1_usize..60, 1..5),
    ) {
        let mut text = Tape::new(&bytes).document().text.into_bytes();
        for (at, what, byte) in damage {
            let at = at as usize % text.len();
            match what {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                2 if text.len() > 1 => drop(text.remove(at)),
                _ => text[at] = b"{}[]\",:\\0-e.tn \n"[byte as usize % 16],
            }
        }
        let whole = decode(&text, &[usize::MAX], &["a", "b"], Limits::default());
        let cut = decode(&text, &sizes, &["a", "b"], Limits::default());
        prop_assert_eq!(&whole, &cut);
        if whole.error.is_none() {
            let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
            let valid = serde_json::from_slice::<serde::de::IgnoredAny>(text);
            prop_assert!(valid.is_ok(), "{:?}", valid);
        }
    }

    #[test]
    fn arbitrary_bytes_neither_panic_nor_loop(
        bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), proptest::sample::select(b"{}[]\",:\\0-e.tn \ndata".to_vec())],
            0..200,
        ),
        prefix in proptest::sample::select(vec!["", "{", "{\"data\":[", "{\"data\":[{\"a\":{\"value\":"]),
    ) {
        let mut text = prefix.as_bytes().to_vec();
        text.extend_from_slice(&bytes);
        let whole = decode(&text, &[usize::MAX], &["a"], Limits::default());
        let cut = decode(&text, &[1], &["a"], Limits::default());
        prop_assert_eq!(whole, cut);
    }
}
