//! What is measured of one operation.

use std::{sync::Arc, time::Instant};

use metrics::{Key, Label, Level, Metadata, Recorder, with_recorder};
use storage_core::{Error, ErrorKind};
use storage_layer::OperationName;

use crate::names;

/// What the recorder is told about where the metrics come from.
static ORIGIN: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// The metrics of one operation with their labels, made once: a call then allocates nothing for them.
#[derive(Debug)]
pub(crate) struct Keys {
    name: OperationName,
    duration: Key,
    successes: Key,
    cancellations: Key,
    read: Key,
    written: Key,
    backend: Label,
}

impl Keys {
    /// Those of every operation on a backend.
    pub(crate) fn all(backend: &Arc<str>) -> Arc<[Self]> {
        OperationName::ALL.iter().map(|name| Self::new(*name, backend)).collect()
    }

    fn new(name: OperationName, backend: &Arc<str>) -> Self {
        let backend = Label::new("backend", backend.clone());
        let key = |metric| Key::from_parts(metric, vec![operation(name), backend.clone()]);
        Self {
            name,
            duration: key(names::DURATION),
            successes: key(names::SUCCESSES),
            cancellations: key(names::CANCELLATIONS),
            read: key(names::BYTES_READ),
            written: key(names::BYTES_WRITTEN),
            backend,
        }
    }
}

fn operation(name: OperationName) -> Label {
    Label::from_static_parts("operation", name.as_str())
}

/// An operation under way. Dropping it is its end: what has no outcome by then was cancelled.
#[derive(Debug)]
pub struct Measurement {
    name: OperationName,
    keys: Arc<[Keys]>,
    begun: Instant,
    outcome: Option<Outcome>,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Success,
    Error(ErrorKind),
}

impl Measurement {
    pub(crate) fn begin(name: OperationName, keys: Arc<[Keys]>) -> Self {
        Self { name, keys, begun: Instant::now(), outcome: None }
    }

    pub(crate) fn read(&self, bytes: u64) {
        self.count(|keys| &keys.read, bytes);
    }

    pub(crate) fn wrote(&self, bytes: u64) {
        self.count(|keys| &keys.written, bytes);
    }

    fn count(&self, which: fn(&Keys) -> &Key, bytes: u64) {
        if bytes > 0
            && let Some(keys) = self.keys()
        {
            with_recorder(|recorder| add(recorder, which(keys), bytes));
        }
    }

    /// The call has returned a stream: the end is yet to come.
    pub(crate) fn goes_on(&mut self) {
        self.outcome = None;
    }

    pub(crate) fn succeeded(&mut self) {
        self.outcome.get_or_insert(Outcome::Success);
    }

    pub(crate) fn failed(&mut self, error: &Error) {
        self.outcome = Some(Outcome::Error(error.kind()));
    }

    /// There is one for each operation.
    fn keys(&self) -> Option<&Keys> {
        self.keys.iter().find(|keys| keys.name == self.name)
    }
}

fn add(recorder: &dyn Recorder, key: &Key, n: u64) {
    recorder.register_counter(key, &ORIGIN).increment(n);
}

impl Drop for Measurement {
    fn drop(&mut self) {
        let Some(keys) = self.keys() else {
            return;
        };
        with_recorder(|recorder| {
            recorder.register_histogram(&keys.duration, &ORIGIN).record(self.begun.elapsed().as_secs_f64());
            match self.outcome {
                Some(Outcome::Success) => add(recorder, &keys.successes, 1),
                Some(Outcome::Error(kind)) => {
                    let kind = Label::from_static_parts("kind", kind.code());
                    let labels = vec![operation(self.name), keys.backend.clone(), kind];
                    add(recorder, &Key::from_parts(names::ERRORS, labels), 1);
                }
                None => add(recorder, &keys.cancellations, 1),
            }
        });
    }
}
