//! Watches: what they tell, and when they must start again.

use futures::{StreamExt, TryStreamExt};
use kube::api::{Patch, PatchParams, WatchEvent, WatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use tokio::time::timeout;

use crate::common::{LONG, Lab};
use crate::{configmap, configmaps};

#[tokio::test]
async fn a_watcher_sees_what_is_there_and_what_comes() {
    let lab = Lab::start().await;
    let api = configmaps(&lab.admin().await);
    configmap(&api, "a").await;
    let stream = watcher(api.clone(), watcher::Config::default()).applied_objects();
    let mut stream = std::pin::pin!(stream);
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let next = timeout(LONG, stream.try_next()).await.unwrap().unwrap().unwrap();
        seen.push(next.metadata.name.unwrap());
    }
    seen.sort();
    assert_eq!(seen, ["a", "kube-root-ca.crt"]);
    configmap(&api, "b").await;
    let next = timeout(LONG, stream.try_next()).await.unwrap().unwrap().unwrap();
    assert_eq!(next.metadata.name.as_deref(), Some("b"));
    lab.server.stop().await;
}

#[tokio::test]
async fn an_old_version_is_gone_and_the_watcher_lists_again() {
    let lab = Lab::with(|config| config.history = 3).await;
    let api = configmaps(&lab.admin().await);
    let first = configmap(&api, "a").await.metadata.resource_version.unwrap();
    for i in 0..5 {
        configmap(&api, &format!("more-{i}")).await;
    }
    let mut raw = api.watch(&WatchParams::default(), &first).await.unwrap().boxed();
    match timeout(LONG, raw.next()).await.unwrap().unwrap().unwrap() {
        WatchEvent::Error(status) => assert_eq!((status.code, status.reason.as_str()), (410, "Expired")),
        other => panic!("{other:?}"),
    }
    // The runtime's watcher: list, lose the history, list again.
    let mut stream = watcher(api.clone(), watcher::Config::default().timeout(1)).boxed();
    while !matches!(
        timeout(LONG, stream.next()).await.unwrap().unwrap().unwrap(),
        watcher::Event::InitDone
    ) {}
    lab.server.api().store.compact();
    configmap(&api, "z").await;
    lab.server.api().store.compact();
    let found = async {
        loop {
            match stream.next().await.unwrap() {
                Ok(watcher::Event::Apply(map) | watcher::Event::InitApply(map))
                    if map.metadata.name.as_deref() == Some("z") =>
                {
                    break;
                }
                _ => {}
            }
        }
    };
    timeout(LONG, found).await.unwrap();
    lab.server.stop().await;
}

#[tokio::test]
async fn bookmarks_come_at_the_end_of_a_streamed_list_and_while_nothing_happens() {
    let lab = Lab::with(|config| config.bookmark_every = std::time::Duration::from_millis(50)).await;
    let api = configmaps(&lab.admin().await);
    configmap(&api, "a").await;
    let params = WatchParams::default().initial_events();
    let mut stream = api.watch(&params, "0").await.unwrap().boxed();
    let mut names = Vec::new();
    loop {
        match timeout(LONG, stream.next()).await.unwrap().unwrap().unwrap() {
            WatchEvent::Added(map) => names.push(map.metadata.name.unwrap()),
            WatchEvent::Bookmark(mark) => {
                assert_eq!(mark.metadata.annotations["k8s.io/initial-events-end"], "true");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(names, ["a", "kube-root-ca.crt"]);
    let quiet = timeout(LONG, stream.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(quiet, WatchEvent::Bookmark(mark) if mark.metadata.annotations.is_empty()));
    lab.server.stop().await;
}

#[tokio::test]
async fn a_selection_is_entered_and_left() {
    let lab = Lab::start().await;
    let api = configmaps(&lab.admin().await);
    configmap(&api, "a").await;
    let mut stream = api
        .watch(&WatchParams::default().labels("on=yes"), "0")
        .await
        .unwrap()
        .boxed();
    for (labels, kind) in [
        (json!({"on": "yes"}), "ADDED"),
        (json!({"on": "yes", "x": "1"}), "MODIFIED"),
        (json!({"on": "no"}), "DELETED"),
    ] {
        api.patch(
            "a",
            &PatchParams::default(),
            &Patch::Merge(json!({"metadata": {"labels": labels}})),
        )
        .await
        .unwrap();
        let event = timeout(LONG, stream.next()).await.unwrap().unwrap().unwrap();
        let found = match event {
            WatchEvent::Added(_) => "ADDED",
            WatchEvent::Modified(_) => "MODIFIED",
            WatchEvent::Deleted(_) => "DELETED",
            _ => "?",
        };
        assert_eq!(found, kind);
    }
    lab.server.stop().await;
}

#[tokio::test]
async fn a_watcher_whose_watches_end_and_fail_misses_nothing() {
    let faults = tempfile::NamedTempFile::new().unwrap();
    let path = faults.path().to_owned();
    let lab = Lab::with(|config| config.fault_file = Some(path.clone())).await;
    let api = configmaps(&lab.admin().await);
    let failing =
        json!([{"watch": true, "prefix": "/api/v1/namespaces/default/configmaps", "code": 503, "times": 2}]);
    std::fs::write(&path, failing.to_string()).unwrap();
    // Every watch ends after a second, the first two do not even start.
    let mut stream = watcher(api.clone(), watcher::Config::default().timeout(1)).boxed();
    let mut failed = 0;
    for name in ["a", "b", "c"] {
        configmap(&api, name).await;
        let found = async {
            loop {
                match stream.next().await.unwrap() {
                    Ok(watcher::Event::Apply(map) | watcher::Event::InitApply(map))
                        if map.metadata.name.as_deref() == Some(name) =>
                    {
                        break;
                    }
                    Ok(_) => {}
                    Err(_) => failed += 1,
                }
            }
        };
        timeout(LONG, found).await.unwrap();
    }
    assert_eq!(failed, 2);
    lab.server.stop().await;
}
