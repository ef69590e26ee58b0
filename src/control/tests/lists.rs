//! Lists over the whole history, groups of reasons, and the audit log.

use super::scripted::{DELIVERY, LOOKING, Running, TOKEN};
use crate::control::view::{Action, Delivery, Done, FailedDelivery, Groups, Listing, Schedules};

#[tokio::test]
async fn the_history_is_read_by_filter_and_what_is_no_filter_is_refused() {
    let admin = Running::start().await;
    {
        let mut script = admin.daemon.script();
        let one = script.deliveries[0].clone();
        for n in 2..=9_u64 {
            script.deliveries.push(Delivery {
                id: format!("{n:032x}"),
                title: format!("Daily {n}"),
                destination: format!("d{}", n % 2),
                state: "done".into(),
                received: crate::clock::UnixMillis(1_000 * n),
                rows: crate::control::view::Rows {
                    dead: n % 3,
                    ..Default::default()
                },
                ..one.clone()
            });
        }
        script.part = 500;
    }
    let listed = async |query: &str| -> usize {
        let listing: Listing<Delivery> = admin.read(&format!("/api/v1/deliveries?{query}")).await;
        listing.items.len()
    };
    for (query, want) in [
        ("", 9),
        ("state=open", 1),
        ("state=incomplete", 5),
        ("destination=d1", 4),
        ("schedule=Daily%204", 1),
        ("schedule=daily", 0),
        ("search=dAILy", 8),
        ("from=4000&until=6000", 2),
        ("search=daily&destination=d0", 4),
        ("search=&schedule=", 9),
    ] {
        assert_eq!(listed(query).await, want, "{query}");
    }
    for wrong in [
        "state=quiet",
        "from=yesterday",
        "colour=red",
        &format!("search={}", "a".repeat(2_000)),
    ] {
        let (status, text) = admin.get(&format!("/api/v1/deliveries?{wrong}")).await;
        assert_eq!(status, 400, "{wrong}: {text}");
    }
    let found: Schedules = admin.read("/api/v1/schedules").await;
    assert_eq!((found.schedules.len(), found.left_out), (9, 0));
    admin.stop().await;
}

#[tokio::test]
async fn failed_deliveries_are_read_by_the_same_filters() {
    let admin = Running::start().await;
    {
        let mut script = admin.daemon.script();
        let one = script.failed[0].clone();
        script.failed = (1..=9_u64)
            .rev()
            .map(|n| FailedDelivery {
                id: format!("{n:032x}"),
                title: format!("Daily {n}"),
                destination: (n > 2).then(|| format!("d{}", n % 2)),
                received: crate::clock::UnixMillis(1_000 * n),
                ..one.clone()
            })
            .collect();
    }
    // The scripted lists come in parts of two.
    let listed = async |query: &str| -> Vec<u64> {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let target = format!("/api/v1/failed-deliveries?{query}{after}");
            let (status, text) = admin.get(&target).await;
            assert_eq!(status, 200, "{query}: {text}");
            let listing: Listing<FailedDelivery> = serde_json::from_str(&text).unwrap();
            found.extend(listing.items.iter().map(|one| one.received.0 / 1_000));
            let Some(next) = listing.next else {
                return found;
            };
            after = format!("&after={next}");
        }
    };
    for (query, want) in [
        ("limit=9", &[9, 8, 7, 6, 5, 4, 3, 2, 1][..]),
        ("destination=d1", &[9, 7, 5, 3]),
        ("schedule=Daily%204", &[4]),
        ("schedule=daily", &[]),
        ("search=dAILy%209", &[9]),
        ("from=4000&until=6000", &[5, 4]),
        ("search=daily&destination=d0&until=8000", &[6, 4]),
        ("search=&schedule=&limit=500", &[9, 8, 7, 6, 5, 4, 3, 2, 1]),
    ] {
        assert_eq!(listed(query).await, want, "{query}");
    }
    for (wrong, why) in [
        ("state=open", "have all failed"),
        ("from=yesterday", "from"),
        ("colour=red", "colour"),
        (&format!("schedule={}", "a".repeat(2_000)), "1000 bytes"),
    ] {
        let (status, text) = admin
            .get(&format!("/api/v1/failed-deliveries?{wrong}"))
            .await;
        assert_eq!(status, 400, "{wrong}: {text}");
        assert!(text.contains(why), "{wrong}: {text}");
    }
    admin.stop().await;
}

#[tokio::test]
async fn dead_letters_of_one_reason_are_seen_and_replayed_together() {
    let admin = Running::start().await;
    {
        let mut script = admin.daemon.script();
        for (n, letter) in script.letters.iter_mut().enumerate() {
            letter.reason = format!("user {} is unknown", 10_000 + n);
        }
        script.letters[2].reason = "another reason".into();
    }
    let groups = "/api/v1/dead-letters/groups";
    let seen: Groups = admin.read(groups).await;
    assert!(!seen.partial);
    let counts: Vec<_> = seen
        .groups
        .iter()
        .map(|group| (&*group.reason, group.count, group.rows))
        .collect();
    assert_eq!(
        counts,
        [("user … is unknown", 2, 8), ("another reason", 1, 4)]
    );
    let body = serde_json::json!({ "reason": seen.groups[0].reason }).to_string();
    let (status, text) = admin.post("/api/v1/dead-letters/replay", &body).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(serde_json::from_str::<Done>(&text).unwrap().changed, 2);
    assert_eq!(admin.read::<Groups>(groups).await.groups.len(), 1);
    for wrong in [
        r#"{"reason":"a","all":true}"#,
        r#"{"reason":"a","delivery":"b"}"#,
    ] {
        let (status, _) = admin.post("/api/v1/dead-letters/replay", wrong).await;
        assert_eq!(status, 400, "{wrong}");
    }

    let rejected: Groups = admin.read("/api/v1/rejected-rows/groups").await;
    assert_eq!((rejected.groups.len(), rejected.groups[0].count), (1, 3));
    assert_eq!(rejected.groups[0].deliveries[0].0, DELIVERY);
    admin.stop().await;
}

#[tokio::test]
async fn who_changed_what_is_on_record_and_who_may_only_look_changes_nothing() {
    let admin = Running::with(Some(TOKEN)).await;
    let bearer = |token: &str| format!("Bearer {token}");
    let (ann, leo) = (bearer(TOKEN), bearer(LOOKING));
    let post = async |target: &str, token: &str, body: &str| {
        let headers = [("authorization", token), ("x-looker-feed", "1")];
        admin.ask("POST", target, &headers, body).await
    };
    let cancel = format!("/api/v1/deliveries/{DELIVERY}/cancel");
    let (status, text) = post(&cancel, &leo, "").await;
    assert_eq!(status, 403);
    assert!(text.contains("may look"), "{text}");
    assert!(
        admin.daemon.script().calls.is_empty(),
        "nothing was changed"
    );
    assert_eq!(post(&cancel, &ann, "").await.0, 200);
    let gone = "/api/v1/destinations/nowhere/pause";
    assert_eq!(post(gone, &ann, "").await.0, 404);
    let replay = "/api/v1/dead-letters/replay";
    assert_eq!(post(replay, &ann, r#"{"all":true}"#).await.0, 200);

    let read = async |query: &str| -> Listing<Action> {
        let headers = [("authorization", leo.as_str())];
        let target = format!("/api/v1/audit{query}");
        let (status, text) = admin.ask("GET", &target, &headers, "").await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    };
    let all = read("").await;
    let told = all.items.iter().map(|action| {
        let Action {
            who,
            call,
            status,
            said,
            ..
        } = action;
        format!("{who} {call} {status} {said}")
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            format!("ann POST {replay} 200 3 batches: replay."),
            format!("ann POST {gone} 404 There is no such destination."),
            format!("ann POST {cancel} 200 1000 rows: cancelled."),
            format!(
                "leo POST {cancel} 403 You may look but not change anything (the role in \
                 `admin.tokens`, or in `admin.user_header_role`, is `look`)."
            ),
        ]
    );
    let first = read("?limit=2").await;
    assert_eq!((first.items.len(), first.next.as_deref()), (2, Some("2")));
    let rest = read("?limit=2&after=2").await;
    assert_eq!((rest.items, rest.next), (all.items[2..].to_vec(), None));
    admin.stop().await;
}
