//! What is done, by its name in the table, and how its client is answered.

use super::call::Call;
use super::problem::Problem;
use super::route::Act;
use super::streams::{self, Stream};
use super::subject::Subject;
use super::{alone, changes, copies, describe, openapi, runs, saving, vms};
use crate::http::Answer;

/// Work that ends with an answer.
pub type Work = fn(&Call) -> Result<Answer, Problem>;

/// How an act is done.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// By a thread, which comes back with an answer.
    Work(Work),
    /// By a thread that has the client for itself.
    Stream(Stream),
    /// With all others that are told the same.
    Watch,
}

/// How it is done.
pub fn way(subject: &Subject, act: Act) -> Way {
    match subject {
        Subject::Book(_) => of_all(act),
        Subject::Vm(_) => of_one(act),
    }
}

/// How many descriptors may come along with a request, to be used.
pub fn descriptors(subject: &Subject, act: Act) -> usize {
    match (subject, act) {
        (Subject::Vm(_), Act::Snapshot) => 1,
        _ => 0,
    }
}

/// How many may come along with any. Instances in a book are made of what has a path, by which they are started again.
pub fn most_descriptors(subject: &Subject) -> usize {
    descriptors(subject, Act::Snapshot)
}

fn of_one(act: Act) -> Way {
    Way::Work(match act {
        Act::Tell => alone::tell,
        Act::Stop => alone::stop,
        Act::Kill => alone::kill,
        Act::Pause => alone::pause,
        Act::Resume => alone::resume,
        Act::Wait => alone::wait,
        Act::Stats => alone::stats,
        Act::Metrics => alone::metrics,
        Act::Limit => alone::limit,
        Act::Balloon => alone::balloon,
        Act::Snapshot => saving::snapshot,
        // Its table has no others but those that both have.
        both => return of_all(both),
    })
}

fn of_all(act: Act) -> Way {
    Way::Work(match act {
        Act::Events => return Way::Watch,
        Act::Exec => return Way::Stream(streams::exec),
        Act::ReadFiles => return Way::Stream(streams::get),
        Act::WriteFiles => return Way::Stream(streams::put),
        Act::Capabilities => vms::capabilities,
        Act::OpenApi => openapi::tell,
        Act::List => vms::list,
        Act::Create => describe::create,
        Act::Tell => vms::tell,
        Act::Delete => vms::delete,
        Act::Start => vms::start,
        Act::Stop => vms::stop,
        Act::Kill => vms::kill,
        Act::Pause => vms::pause,
        Act::Resume => vms::resume,
        Act::Wait => vms::wait,
        Act::Logs => vms::logs,
        Act::Stats => vms::stats,
        Act::Metrics => changes::metrics,
        Act::Limit => changes::limit,
        Act::Balloon => changes::balloon,
        Act::Snapshot => copies::snapshot,
        Act::Suspend => copies::suspend,
        Act::Clone => copies::clone,
        Act::Restore => copies::restore,
        Act::Run => runs::run,
        Act::Operations => copies::list,
        Act::Operation => copies::tell,
        Act::AwaitOperation => copies::wait,
        Act::CancelOperation => copies::cancel,
    })
}
