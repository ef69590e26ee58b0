use super::*;

/// Scans `text` cut at every `size` bytes: whether it is one whole value.
fn valid(text: &[u8], size: usize) -> bool {
    let mut scanner = Scanner::new(64, 3);
    // White space after it, since only what follows ends a number.
    let text = [text, b" "].concat();
    for mut chunk in text.chunks(size) {
        while !chunk.is_empty() {
            match scanner.step(chunk) {
                Ok((used, _)) => chunk = &chunk[used..],
                Err(_) => return false,
            }
        }
    }
    scanner.done()
}

#[test]
fn the_grammar_is_that_of_serde_json() {
    let table = r#"0 ; -0 ; 00 ; 01 ; - ; +1 ; 1. ; .5 ; 1.5 ; 1.5.5 ; 1e5 ; 1E+05 ; 1e ; 1e- ;
-1.0e-0 ; 1_0 ; 0x1 ; NaN ; Infinity ; -Infinity ; true ; True ; tru ; truee ;
null ; nul ; false ; fals ; "" ; "\" ; "\u12g4" ; "\uD800" ; "\v" ; 'x' ; [] ;
[,] ; [1,] ; [1 2] ; [1,2] ; [ ; ] ; [} ; {} ; {,} ; {"a"} ; {"a":} ; {"a":1,} ;
{"a":1 "b":2} ; {a:1} ; {"a":1] ; {"a" : [ {"b" : [ ] } , -1 ] } ; {"a"::1} ;
1 1"#;
    let odd = ["\"\t\"", "\"\u{7f}\"", "", " ", "\u{b}1"];
    for text in table.split(';').map(str::trim).chain(odd) {
        let want = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        for size in [1, 2, 3, 100] {
            assert_eq!(valid(text.as_bytes(), size), want, "{text:?} by {size}");
        }
    }
}

#[test]
fn only_plain_members_that_do_not_matter_are_passed_over() {
    for (members, passed) in [
        (
            r#","a":null,"b":true,"c":false,"d":[],"e":{},"f":"text",x"#,
            53,
        ),
        (r#","a":"x","name":"x""#, 8),
        (r#","a":"x"}"#, 8),
        (r#","a":10,"b":0,"c":1234567890123456789}"#, 37),
        (r#","a":01,"#, 0),
        (r#","a":-1,"#, 0),
        (r#","a":1.5,"#, 0),
        (r#","a":1"#, 0),
        (r#","a":["x"],"b":["x","y"]}"#, 24),
        (r#","a":["x",],"#, 0),
        (r#","a":["x" ],"#, 0),
        (r#","a":["x""y"],"#, 0),
        (r#","a":["x","#, 0),
        (
            r#","a":["
"],"#,
            0,
        ),
        (r#","a":"\n","#, 0),
        (r#","\u0061":"x","#, 0),
        (r#","é":"x","#, 0),
        (r#","a": "x","#, 0),
        (r#","a":"x""#, 0),
        (r#","a":"x"]"#, 0),
        (r#","a":nullx,"#, 0),
        (r#","a":[1],"#, 0),
        (r#","a"#, 0),
        (r#""a":"x","#, 0),
        ("", 0),
    ] {
        // Behind a value, and behind the brace.
        for (before, members, passed) in [
            ("{\"z\":true", members, passed),
            (
                "{",
                members.strip_prefix(',').unwrap_or("x"),
                passed.max(1) - 1,
            ),
        ] {
            let mut scanner = Scanner::new(9, 1);
            let mut before = before.as_bytes();
            while !before.is_empty() {
                before = &before[scanner.step(before).unwrap().0..];
            }
            assert_eq!(scanner.pass_over(members.as_bytes(), |_, _| true), 0);
            let matters = |depth: usize, key: &[u8]| depth != 1 || key == b"name";
            let count = scanner.pass_over(members.as_bytes(), matters);
            assert_eq!(count, passed, "{members}");
        }
    }
}

#[test]
fn a_muted_value_is_read_the_same_by_members_and_by_bytes() {
    let value = r#"{"a":1,"b":["x"],"c":{"d":null,"e":[{"f":"g"}]},"h":[],"i":{}}"#;
    let document = format!("{{\"muted\":{value},\"z\":0}}");
    // Where lists may not nest any deeper, too.
    for max_depth in 1..6 {
        let read = |length: usize| {
            let mut scanner = Scanner::new(max_depth, 1);
            let (mut at, mut seen) = (0, Vec::new());
            while at < document.len() {
                let part = &document.as_bytes()[at..document.len().min(at + length)];
                match scanner.step(part) {
                    Ok((used, event)) => {
                        at += used;
                        if event.is_some_and(|seen| seen.event == Event::KeyEnd) && at < 10 {
                            scanner.mute_value();
                        }
                        seen.extend(event.map(|event| (at, event)));
                    }
                    Err(Stuck { at: place, fault }) => {
                        return (seen, Some((at + place, fault)));
                    }
                }
            }
            (seen, None)
        };
        let whole = read(document.len());
        assert_eq!(whole.1.is_none(), max_depth == 5);
        assert_eq!(whole, read(1), "{max_depth}");
        assert_eq!(whole, read(7), "{max_depth}");
    }
}

#[test]
fn events_tell_where_keys_and_values_lie() {
    let text = br#"{"a": [1, {}], "b": "x"}"#;
    let mut scanner = Scanner::new(64, 1);
    let mut at = 0;
    let mut seen = Vec::new();
    while let Ok((used, Some(event))) = scanner.step(&text[at..]) {
        at += used;
        seen.push((event.event, event.depth, at));
    }
    use Event::*;
    let want = [
        (ValueBegin(Kind::Object), 0, 1),
        (KeyBegin, 1, 2),
        (KeyEnd, 1, 4),
        (ValueBegin(Kind::Array), 1, 7),
        (ValueEnd, 1, 13),
        (KeyBegin, 1, 16),
        (KeyEnd, 1, 18),
        (ValueBegin(Kind::String), 1, 21),
        (ValueEnd, 1, 23),
        (ValueEnd, 0, 24),
    ];
    assert_eq!(seen, want);
}

#[test]
fn nesting_ends_at_the_limit_and_never_beyond_what_can_be_counted() {
    for (limit, deepest) in [(0, 0), (5, 5), (128, 128), (1_000, 128)] {
        for depth in [deepest, deepest + 1] {
            let text = "[".repeat(depth) + &"]".repeat(depth);
            let mut scanner = Scanner::new(limit, 0);
            let mut at = 0;
            let stuck = loop {
                match scanner.step(&text.as_bytes()[at..]) {
                    Ok((_, None)) => break None,
                    Ok((used, Some(_))) => at += used,
                    Err(stuck) => break Some(stuck.fault),
                }
            };
            let want = (depth > deepest).then_some(Fault::TooDeep);
            assert_eq!(stuck, want, "{depth} of {limit}");
        }
    }
}
