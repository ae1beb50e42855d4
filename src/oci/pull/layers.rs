//! The layers of an image on their way into the store, some at a time.

use super::Error;
use crate::progress::{Progress, Stage};
use crate::registry::{self, Access, Blob, Registry};
use crate::unpack;
use kvmlet_image::Digest;
use kvmlet_image::config::ImageConfig;
use kvmlet_image::manifest::{Descriptor, Manifest};
use kvmlet_image::store::{Begun, Store, StoredLayer};
use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// As many as docker has come at a time.
const PARALLEL: usize = 3;

/// A layer that is to come.
pub(super) struct Layer {
    diff_id: Digest,
    pub descriptor: Descriptor,
}

/// All that an image has, each once.
pub(super) struct Layers {
    pub all: Vec<Layer>,
}

impl Layers {
    pub fn new(manifest: &Manifest, config: &ImageConfig) -> Self {
        let mut seen = HashSet::new();
        let pairs = config.layers.iter().zip(&manifest.layers);
        let once = pairs.filter(|(diff_id, _)| seen.insert(**diff_id));
        let all = once.map(|(diff_id, descriptor)| Layer {
            diff_id: *diff_id,
            descriptor: descriptor.clone(),
        });
        Self { all: all.collect() }
    }

    pub fn pull(
        &self,
        store: &Store,
        registry: &Registry,
        access: &Access,
        progress: &Progress,
    ) -> Result<Vec<StoredLayer>, Error> {
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let result = Mutex::new(Ok(Vec::new()));
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(layer) = self.all.get(number) else {
                    return;
                };
                let note = |stage| progress.note(number, stage);
                let pulled = layer.pull(store, registry, access, &stop, &note);
                let mut result = result.lock().unwrap_or_else(|it| it.into_inner());
                match (pulled, &mut *result) {
                    (Ok(layer), Ok(all)) => all.push(layer),
                    // The first one is the reason for all others.
                    (Err(error), Ok(_)) => {
                        stop.store(true, Ordering::Relaxed);
                        *result = Err(error);
                    }
                    (_, Err(_)) => {}
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL.min(self.all.len()) {
                scope.spawn(work);
            }
        });
        result.into_inner().unwrap_or_else(|it| it.into_inner())
    }
}

impl Layer {
    fn pull(
        &self,
        store: &Store,
        registry: &Registry,
        access: &Access,
        stop: &AtomicBool,
        note: &dyn Fn(Stage),
    ) -> Result<StoredLayer, Error> {
        if let Some(layer) = store.layer(&self.diff_id)? {
            note(Stage::Exists);
            return Ok(layer);
        }
        note(Stage::Waiting);
        let addition = match store.begin_layer(&self.diff_id)? {
            Begun::There(layer) => {
                note(Stage::Exists);
                return Ok(layer);
            }
            Begun::Yours(addition) => addition,
        };
        let mut arrival = Arrival {
            blob: registry.blob(access, &self.descriptor),
            stop,
            note,
            failure: None,
        };
        let added = addition.add_by(|file, place| {
            let unpacked = unpack::unpack(&self.diff_id, &mut arrival, file, place.path());
            Ok::<_, Error>(unpacked?)
        });
        match (added, arrival.failure) {
            // Why nothing more came is why it could not be read.
            (_, Some(failure)) => Err(failure.into()),
            (Ok(layer), None) => {
                note(Stage::Done);
                Ok(layer)
            }
            (Err(error), None) => Err(error),
        }
    }
}

/// A layer on its way: told, and stopped where another one has failed.
struct Arrival<'a> {
    blob: Blob<'a>,
    stop: &'a AtomicBool,
    note: &'a dyn Fn(Stage),
    failure: Option<registry::Error>,
}

impl Read for Arrival<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("another layer has failed"));
        }
        match self.blob.next(bytes) {
            Ok(count) => {
                (self.note)(Stage::Moved(count as u64));
                Ok(count)
            }
            Err(error) => {
                let told = io::Error::other(error.to_string());
                self.failure = Some(error);
                Err(told)
            }
        }
    }
}
