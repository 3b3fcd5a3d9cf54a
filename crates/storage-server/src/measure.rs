//! What is measured of each request.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use axum::http::Method;
use metrics::{Key, Label, Level, Metadata, SharedString, with_recorder};

const METADATA: Metadata<'static> = Metadata::new("storage_server", Level::INFO, Some(module_path!()));

/// The names of what was measured already, so that they are not made anew for each request.
#[derive(Default)]
pub(crate) struct Measured(RwLock<Known>);

/// By method and status, for each route.
type Known = HashMap<(&'static str, u16), Vec<Arc<Names>>>;

struct Names {
    route: Box<str>,
    count: Key,
    seconds: Key,
}

impl Measured {
    /// Counts a request that was answered.
    pub(crate) fn answered(&self, method: &'static str, route: &str, status: u16, seconds: f64) {
        let names = self.names(method, route, status);
        with_recorder(|recorder| {
            recorder.register_counter(&names.count, &METADATA).increment(1);
            recorder.register_histogram(&names.seconds, &METADATA).record(seconds);
        });
    }

    fn names(&self, method: &'static str, route: &str, status: u16) -> Arc<Names> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let of_route = |all: &Vec<Arc<Names>>| all.iter().find(|names| &*names.route == route).cloned();
        if let Some(names) = known.get(&(method, status)).and_then(of_route) {
            return names;
        }
        drop(known);
        // Methods, routes and statuses are so many, whatever clients send.
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let all = known.entry((method, status)).or_default();
        if let Some(names) = of_route(all) {
            return names;
        }
        let label = |name, value: String| Label::new(name, SharedString::from_owned(value));
        let labels =
            vec![label("method", method.into()), label("route", route.into()), label("status", status.to_string())];
        let names = Arc::new(Names {
            route: route.into(),
            count: Key::from_parts("storage_server_requests_total", labels.clone()),
            seconds: Key::from_parts("storage_server_request_seconds", labels),
        });
        all.push(names.clone());
        names
    }
}

/// Counts a request while it is under way, also one whose client goes before it is answered.
pub(crate) struct UnderWay(metrics::Gauge);

impl UnderWay {
    pub(crate) fn new() -> Self {
        let gauge = metrics::gauge!("storage_server_requests_in_flight");
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// The method, so that nobody fills the measurements with names of his own.
pub(crate) fn known(method: &Method) -> &'static str {
    let all = ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"];
    all.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

impl fmt::Debug for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Measured").finish_non_exhaustive()
    }
}
