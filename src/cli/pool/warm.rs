//! Pools of an image: instances that have gone on from its template, as `kvmlet run --warm` has them do, and were paused as soon as
//! they ran. So each is a machine of its own before anybody takes it.
//!
//! They are noted before they are made: whoever is killed in the middle leaves nothing that the next who fills the pool, or removes
//! it, would not find.

use crate::instances::{book, look, tell};
use crate::{Cli, Failed, RunOnly, beside};
use clap::Parser;
use kvmlet_manager::{Book, InstanceId, Name, PoolNote, PooledInstances, Pools, State};
use kvmlet_sys::{descriptors, standard_error};
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

/// By which its instances can be listed.
const LABEL: &str = "kvmlet.pool";
/// How often whoever waits for another to fill it looks.
const LOOKS: Duration = Duration::from_millis(10);

/// What each instance is to be, looked at as `kvmlet run` would, and its image. None if the words are wrong, which was told.
pub(super) fn instances(words: &[OsString]) -> Result<Option<(PooledInstances, PathBuf)>, Failed> {
    let run = ["kvmlet", "run", "--warm"].map(OsStr::new).into_iter();
    let run = run.chain(words.iter().map(OsString::as_os_str));
    let RunOnly::Run(run) = match Cli::<RunOnly>::try_parse_from(run) {
        Ok(Cli { verb, .. }) => verb,
        Err(error) => {
            // Nobody is left to tell when the output is gone.
            let _ = error.print();
            return Ok(None);
        }
    };
    run.check_for_pool(words)?;
    let words = words.iter().map(|word| word.to_str().map(String::from));
    let words: Option<_> = words.collect();
    let words =
        words.ok_or_else(|| Failed::new("a pool is noted in UTF-8, and these words are not"))?;
    let directory = std::env::current_dir().map_err(Failed::new)?;
    Ok(Some((PooledInstances::of(words, directory), run.image())))
}

/// Makes instances until that many are parked, or as many as the pool is to have; false if somebody else does so.
pub(super) fn fill(pools: &Pools, name: &Name, most: Option<usize>) -> Result<bool, Failed> {
    let book = book()?;
    while let Some(lock) = pools.try_fill(name)? {
        let Some(note) = pools.of_image(name)? else {
            return Ok(true);
        };
        clear(&book, pools, &note)?;
        while one_more(&book, pools, &note, most)? {}
        drop(lock);
        // Who has taken one just now has found the lock taken.
        let now = pools.of_image(name)?.and_then(|note| note.instances);
        if now.is_none_or(|now| now.parked.len() >= wanted(&note, most)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn wanted(note: &PoolNote, most: Option<usize>) -> usize {
    most.unwrap_or(usize::MAX).min(note.size as usize)
}

/// Changes what a pool has, if it is still that pool.
fn change<T>(
    pools: &Pools,
    pool: &PoolNote,
    change: impl FnOnce(&mut PooledInstances) -> T,
) -> Result<Option<T>, Failed> {
    let changed = pools.change(&pool.name, |note| match &mut note.instances {
        Some(instances) if note.made == pool.made => Some(change(instances)),
        _ => None,
    });
    Ok(changed?)
}

/// Takes out what nobody can take: what has ended, which is removed, and what somebody has let go on.
fn clear(book: &Book, pools: &Pools, pool: &PoolNote) -> Result<(), Failed> {
    if let Some(id) = pool.instances.as_ref().and_then(|it| it.making.as_ref()) {
        remove(book, id);
        change(pools, pool, |it| it.making = None)?;
    }
    let parked = pool.instances.iter().flat_map(|it| &it.parked);
    for id in parked {
        let state = look(book, id.as_str()).ok().map(|(_, view)| view.state);
        match state {
            Some(State::Paused) => continue,
            Some(State::Running | State::Suspended | State::Restarting) => {}
            Some(_) => remove(book, id),
            None => {}
        }
        change(pools, pool, |it| it.parked.retain(|other| other != id))?;
    }
    Ok(())
}

/// Makes one, unless there are enough. False then.
fn one_more(
    book: &Book,
    pools: &Pools,
    pool: &PoolNote,
    most: Option<usize>,
) -> Result<bool, Failed> {
    let id = InstanceId::random().map_err(Failed::new)?;
    let begun = change(pools, pool, |it| {
        let lacks = it.parked.len() < wanted(pool, most);
        lacks.then(|| {
            it.making = Some(id.clone());
            (it.words.clone(), it.directory.clone())
        })
    })?;
    let Some((words, directory)) = begun.flatten() else {
        return Ok(false);
    };
    let made = make(book, &pool.name, &id, &words, &directory);
    let lack = made.as_ref().err().map(|failed| {
        let text = failed.to_string();
        text.trim_start_matches("error: ").trim_end().to_owned()
    });
    let is_kept = change(pools, pool, |it| {
        it.parked.extend(lack.is_none().then(|| id.clone()));
        (it.making, it.lack) = (None, lack);
        it.parked.contains(&id)
    });
    if !matches!(is_kept, Ok(Some(true))) {
        // Or the pool was removed meanwhile.
        remove(book, &id);
    }
    made.and(is_kept).map(|is_kept| is_kept == Some(true))
}

/// Has an instance run, and stand still.
fn make(
    book: &Book,
    pool: &Name,
    id: &InstanceId,
    words: &[String],
    directory: &Path,
) -> Result<(), Failed> {
    let failed = |error| Failed::in_vain("an instance of the pool cannot be started", error);
    let mut run = beside::machine()?;
    run.args(["run", "--warm", "--detach", "--id", id.as_str(), "--label"])
        .arg(format!("{LABEL}={pool}"))
        .args(words)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let ran = run.output().map_err(failed)?;
    let said = String::from_utf8_lossy(&ran.stderr);
    let said = said.trim_start_matches("error: ").trim_end();
    if !ran.status.success() {
        return Err(Failed::new(said.to_owned()));
    }
    if !said.is_empty() {
        // Why a template was thrown away, say.
        standard_error::say(format_args!("{said}"));
    }
    let (instance, view) = look(book, id.as_str())?;
    Ok(instance.control(view.called())?.pause()?)
}

/// What is not there need not be removed.
fn remove(book: &Book, id: &InstanceId) {
    let Ok((instance, view)) = look(book, id.as_str()) else {
        return;
    };
    match book.end_and_remove(&instance) {
        Ok(()) => tell(book, "destroy", &view, []),
        Err(error) => log::info!("an instance of a pool is not removed: {error}"),
    }
}

/// Removes one, if it is of an image, with what nobody has taken.
pub(super) fn remove_pool(pools: &Pools, name: &Name) -> Result<bool, Failed> {
    let had = pools.forget_image(name)?;
    let book = book()?;
    had.iter()
        .flat_map(|it| &it.making)
        .for_each(|id| remove(&book, id));
    had.iter().flat_map(|it| &it.parked).for_each(|id| {
        // One that somebody has let go on is theirs.
        let state = look(&book, id.as_str()).ok().map(|(_, view)| view.state);
        if !matches!(state, Some(State::Running | State::Suspended)) {
            remove(&book, id);
        }
    });
    Ok(had.is_some())
}

/// How many of its instances could be taken now.
pub(super) fn ready(book: &Book, note: &PoolNote) -> u32 {
    let parked = note.instances.iter().flat_map(|it| &it.parked);
    let views = parked.filter_map(|id| look(book, id.as_str()).ok());
    views
        .filter(|(_, view)| view.state == State::Paused)
        .count() as u32
}

/// Has an instance of a pool go on, which is called that from then on; returns its id.
pub(super) fn take(
    pools: &Pools,
    mut pool: PoolNote,
    called: Option<&Name>,
) -> Result<InstanceId, Failed> {
    let book = book()?;
    loop {
        let parked = pool.instances.as_ref().map(|it| it.parked.clone());
        for id in parked.unwrap_or_default() {
            if take_one(&book, pools, &pool, &id, called)? {
                refill(&pool.name)?;
                return Ok(id);
            }
        }
        if !fill(pools, &pool.name, Some(1))? {
            sleep(LOOKS);
        }
        pool = match pools.of_image(&pool.name)? {
            Some(now) => now,
            None => return Err(Failed::new(format!("pool `{}` was removed", pool.name))),
        };
    }
}

/// False if somebody else has it, or it has ended.
fn take_one(
    book: &Book,
    pools: &Pools,
    pool: &PoolNote,
    id: &InstanceId,
    called: Option<&Name>,
) -> Result<bool, Failed> {
    let Ok((instance, view)) = look(book, id.as_str()) else {
        return Ok(false);
    };
    if view.state != State::Paused {
        return Ok(false);
    }
    let taken = change(pools, pool, |it| {
        let before = it.parked.len();
        it.parked.retain(|other| other != id);
        let is_ours = it.parked.len() < before;
        it.taken += u32::from(is_ours);
        is_ours
    })?;
    if taken != Some(true) {
        return Ok(false);
    }
    let go_on = || -> Result<(), Failed> {
        if let Some(called) = called {
            book.rename(id.as_str(), called)?;
        }
        Ok(instance.control(view.called())?.unpause()?)
    };
    if let Err(failed) = go_on() {
        // It waits on.
        change(pools, pool, |it| {
            it.parked.push(id.clone());
            it.taken -= 1;
        })?;
        return Err(failed);
    }
    if called.is_some() {
        let old = view.called().to_owned();
        let (_, view) = look(book, id.as_str())?;
        tell(book, "rename", &view, [("oldName", old)]);
    }
    Ok(true)
}

/// Has another process make what is lacking, which nobody waits for.
fn refill(name: &Name) -> Result<(), Failed> {
    descriptors::keep_from_programs();
    let mut filler = beside::verbs()?;
    filler
        .args(["pool", "fill", name.as_str()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    let started = filler.spawn().map(drop);
    started.map_err(|error| Failed::in_vain("the pool is not filled again", error))
}
