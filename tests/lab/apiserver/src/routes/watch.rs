//! watch.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Call;
use super::read::Selection;
use crate::answer::{Answer, Format};
use crate::api::Api;
use crate::error::ApiError;
use crate::request::Query;
use crate::resource::Resource;
use crate::store::{Change, Event, Since};

/// The real server ends watches after 30 to 60 minutes.
const LONGEST: Duration = Duration::from_secs(45 * 60);

/// A watch in progress.
struct Watcher {
    api: Arc<Api>,
    resource: Arc<Resource>,
    namespace: String,
    selection: Selection,
    format: Format,
    query: Query,
    /// Changes up to this version were sent.
    cursor: u64,
    bookmarks: bool,
    latest: tokio::sync::watch::Receiver<u64>,
    ready: VecDeque<Bytes>,
    until: Instant,
    ended: bool,
    columns_sent: bool,
}

pub(super) fn watch(call: Call) -> Result<Answer, ApiError> {
    let selection = Selection::read(&call)?;
    let asked = call.query.get("resourceVersion").unwrap_or_default();
    let version: Option<u64> = match asked {
        "" | "0" => None,
        number => Some(
            number
                .parse()
                .map_err(|_| ApiError::bad_request("resourceVersion is no number"))?,
        ),
    };
    let initial = call.query.get("sendInitialEvents").map(|v| v == "true");
    let bookmarks = call.query.flag("allowWatchBookmarks");
    if initial == Some(true) && !bookmarks {
        return Err(ApiError::bad_request(
            "sendInitialEvents requires setting allowWatchBookmarks to true",
        ));
    }
    let longest = match call.query.get("timeoutSeconds") {
        Some(seconds) => {
            let seconds: u64 = seconds
                .parse()
                .map_err(|_| ApiError::bad_request("timeoutSeconds is no number"))?;
            if seconds == 0 {
                LONGEST
            } else {
                Duration::from_secs(seconds).min(LONGEST)
            }
        }
        None => LONGEST,
    };
    let mut watcher = Watcher {
        latest: call.api.store.subscribe(),
        api: call.api,
        resource: call.resource,
        namespace: call.path.namespace,
        selection,
        format: call.format,
        query: call.query,
        cursor: version.unwrap_or(0),
        bookmarks,
        ready: VecDeque::new(),
        until: Instant::now() + longest,
        ended: false,
        columns_sent: false,
    };
    watcher.start(version, initial);
    let stream = futures::stream::unfold(watcher, |mut watcher| async move {
        let line = watcher.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(line)), watcher))
    });
    let mut answer = Response::new(StreamBody::new(stream).boxed_unsync());
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    Ok(answer)
}

impl Watcher {
    /// Sends the state of now where the protocol asks for it: without a version (or version 0), or with
    /// `sendInitialEvents`, which ends with a bookmark.
    fn start(&mut self, version: Option<u64>, initial: Option<bool>) {
        if initial.unwrap_or(version.is_none()) {
            let (all, now) = self.api.store.list(&self.resource.drawer, &self.namespace);
            for value in &all {
                if self.selection.matches(value) {
                    self.send("ADDED", value);
                }
            }
            self.cursor = now;
            if initial == Some(true) {
                self.bookmark(true);
            }
        } else if version.is_none() {
            self.cursor = self.api.store.version();
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        let mut quiet_since = Instant::now();
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.ended {
                return None;
            }
            self.latest.borrow_and_update();
            match self.api.store.since(&self.resource.drawer, self.cursor) {
                Since::Changes(events, now) => {
                    for event in &events {
                        self.change(event);
                    }
                    self.cursor = now;
                }
                Since::Expired(oldest) => {
                    let status = ApiError::expired(self.cursor, oldest).status();
                    self.line("ERROR", &status);
                    self.ended = true;
                }
            }
            if !self.ready.is_empty() {
                continue;
            }
            let bookmark_at = quiet_since + self.api.bookmark_every;
            tokio::select! {
                changed = self.latest.changed() => {
                    if changed.is_err() { self.ended = true; }
                }
                () = tokio::time::sleep_until(bookmark_at), if self.bookmarks => {
                    self.bookmark(false);
                    quiet_since = Instant::now();
                }
                () = tokio::time::sleep_until(self.until) => {
                    if self.bookmarks { self.bookmark(false); }
                    self.ended = true;
                }
            }
        }
    }

    /// A change as seen through the selectors: an object that enters the selection is new, one that leaves it is gone.
    fn change(&mut self, event: &Event) {
        if !self.namespace.is_empty() && crate::object::namespace(&event.object) != self.namespace {
            return;
        }
        let before = event.previous.as_ref().is_some_and(|p| self.selection.matches(p));
        let after = event.change != Change::Deleted && self.selection.matches(&event.object);
        match (before, after) {
            (false, true) => self.send("ADDED", &event.object),
            (true, true) => self.send("MODIFIED", &event.object),
            (true, false) => self.gone(event),
            (false, false) => {}
        }
    }

    fn gone(&mut self, event: &Event) {
        // An object that only left the selection is sent as it was when it still fitted, at the new version.
        let mut last = match (&event.previous, event.change) {
            (Some(previous), Change::Modified | Change::Added) => (**previous).clone(),
            _ => (*event.object).clone(),
        };
        crate::object::metadata_mut(&mut last)
            .insert("resourceVersion".into(), event.version.to_string().into());
        self.send("DELETED", &last);
    }

    fn send(&mut self, kind: &str, stored: &Value) {
        let served = self.resource.to_served(stored);
        let object = match &self.format {
            Format::Table(version) => {
                let now = self.api.clock.now();
                let mut table = crate::table::table(&self.resource, &[served], version, &self.query, now);
                table["metadata"] =
                    json!({"resourceVersion": crate::object::meta(stored, "resourceVersion")});
                if self.columns_sent {
                    table["columnDefinitions"] = Value::Null;
                }
                self.columns_sent = true;
                table
            }
            Format::Metadata => crate::table::partial(&served),
            _ => served,
        };
        self.line(kind, &object);
    }

    fn bookmark(&mut self, initial_end: bool) {
        let mut object = json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(),
            "metadata": {"resourceVersion": self.cursor.to_string(), "creationTimestamp": null}});
        if initial_end {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match &self.format {
            Format::Table(version) => {
                let now = self.api.clock.now();
                let mut table = crate::table::table(&self.resource, &[object], version, &self.query, now);
                table["metadata"] = json!({"resourceVersion": self.cursor.to_string()});
                object = table;
            }
            Format::Metadata => object = crate::table::partial(&object),
            _ => {}
        }
        self.line("BOOKMARK", &object);
    }

    fn line(&mut self, kind: &str, object: &Value) {
        self.ready
            .push_back(format!("{}\n", json!({"type": kind, "object": object})).into());
    }
}
