//! A host agent that runs ten tenants, each in a VM, and survives its own end: kill it as you like, start it again, and it
//! finds its VMs, holds them, and has missed nothing that happened to one.
//!
//! `cargo run -p kvmlet --example agent -- DIRECTORY KERNEL [CMDLINE]` runs until its standard input ends, and then leaves the VMs
//! alone; without a kernel, it ends all that run. A VM that ends is followed by the tenant's next one.
//!
//! What it knows are files. `DIRECTORY/events` has a line of JSON for each VM that has started, and one when it has ended.
//! `DIRECTORY/tenantN/` has those of each VM by its number: `sock` is there as long as it runs, `outcome` once it has ended,
//! whoever holds it then, `vsock` leads to its guest. `log` is what kvmlet says, `snapshot` the VM as it was when it had started,
//! `metrics` what it has done since, for a scraper.
//!
//! Each tenant has a network with this host, `10.108.0.0/30` and those behind it, the same for all of its VMs, with no way out. Where
//! this program may make none, as without CAP_NET_ADMIN, it says so and does without.

use kvmlet::config::{CpuQuota, Net, Vsock};
use kvmlet::control::Client;
use kvmlet::instance::Error as VmError;
use kvmlet::{Instance, MemorySize, Outcome, Running, Surroundings, VmConfig};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fs::{self, File};
use std::io::{Read, Write, stdin};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

type Done<T = ()> = Result<T, Box<dyn Error>>;

const TENANTS: usize = 10;
/// How long a tenant's service has to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often VMs tell what they have done.
const SCRAPED: Duration = Duration::from_secs(1);
/// How long a VM that is on its way, here or away, may take.
const SETTLING: Duration = Duration::from_secs(30);

/// Processes in the jail may map no memory. With glibc there is no need of this.
#[global_allocator]
static ALLOCATOR: kvmlet::instance::Allocator = kvmlet::instance::Allocator;

fn main() -> Done {
    kvmlet::init();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [directory, rest @ ..] = &words[..] else {
        return Err("name a directory, and a kernel".into());
    };
    let directory = Path::new(directory);
    fs::create_dir_all(directory)?;
    let mut journal = Journal::open(&directory.join("events"))?;
    let mut tenants: Vec<Tenant> = (0..TENANTS)
        .map(|number| Tenant::of(directory, number, &journal))
        .collect();
    let [kernel, cmdline @ ..] = rest else {
        return tenants.iter_mut().try_for_each(|it| it.end(&mut journal));
    };
    let cmdline = cmdline.join(" ");
    let mut networks = Networks::Untried;
    let (tell, is_over) = std::sync::mpsc::channel();
    // One that cannot have its VM is no reason to neglect the others.
    let mut look_after = |tenants: &mut [Tenant]| {
        for tenant in tenants {
            let done = tenant.look_after((kernel, cmdline.as_str()), &mut networks, &mut journal);
            if let Err(error) = done {
                eprintln!("{}: {error}", tenant.name);
            }
        }
    };
    look_after(&mut tenants);
    let held = tenants.iter().filter(|tenant| tenant.vm.is_some());
    println!("holds {} VMs", held.count());
    std::thread::spawn(move || {
        let _ = stdin().read_to_end(&mut Vec::new());
        let _ = tell.send(());
    });
    while is_over.recv_timeout(Duration::from_millis(10)).is_err() {
        look_after(&mut tenants);
    }
    for tenant in tenants {
        tenant.vm.map(Running::leave);
    }
    Ok(())
}

/// Something that has happened to a VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Event {
    tenant: String,
    vm: u32,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum What {
    /// It is about to start: if nothing of it is found, it never has.
    Wanted,
    Started,
    Ended(Box<Outcome>),
    /// Its supervisor was killed before it could tell how it has ended.
    Lost,
}

/// What has happened, in its order. A line is written at once, and nothing is done before it is.
struct Journal {
    file: File,
    events: Vec<Event>,
}

impl Journal {
    fn open(path: &Path) -> Done<Self> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines().map(serde_json::from_str);
        let mut file = File::options().create(true).append(true).open(path)?;
        // A line that was cut is none: what it was about is looked at anew.
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        Ok(Self {
            file,
            events: lines.filter_map(Result::ok).collect(),
        })
    }

    fn of(&self, tenant: &str, vm: u32) -> impl Iterator<Item = &What> {
        let own = move |event: &&Event| event.tenant == tenant && event.vm == vm;
        self.events.iter().filter(own).map(|event| &event.what)
    }

    fn note(&mut self, tenant: &str, vm: u32, what: What) -> Done {
        let tenant = tenant.to_owned();
        let event = Event { tenant, vm, what };
        let line = serde_json::to_string(&event)? + "\n";
        self.file.write_all(line.as_bytes())?;
        self.events.push(event);
        Ok(())
    }
}

/// Whether tenants have networks.
#[derive(Clone, Copy, PartialEq)]
enum Networks {
    Untried,
    /// A VM has one. Who is to have the next one and has not is tried again.
    Had,
    /// This program may make none.
    Refused,
}

/// One tenant, by its files.
struct Tenant {
    number: usize,
    name: String,
    directory: PathBuf,
    /// The number of its last VM; 0 if it had none.
    last: u32,
    /// That VM, if it is held.
    vm: Option<Running>,
    /// When it has told last what it has done.
    measured: Option<Instant>,
}

impl Tenant {
    fn of(directory: &Path, number: usize, journal: &Journal) -> Self {
        let name = format!("tenant{number}");
        let own = journal.events.iter().filter(|event| event.tenant == name);
        Self {
            number,
            directory: directory.join(&name),
            last: own.map(|event| event.vm).max().unwrap_or(0),
            name,
            vm: None,
            measured: None,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A file of its last VM.
    fn own(&self, extension: &str) -> PathBuf {
        self.directory.join(format!("{}.{extension}", self.last))
    }

    /// Has its VM run, and notes what has happened meanwhile.
    fn look_after(
        &mut self,
        program: (&str, &str),
        networks: &mut Networks,
        journal: &mut Journal,
    ) -> Done {
        fs::create_dir_all(&self.directory)?;
        if self.vm.is_none() && self.last > 0 {
            self.find(journal)?;
            if self.vm.is_some() && self.address().is_ok_and(|it| it.is_some()) {
                *networks = Networks::Had;
            }
        }
        if let Some(vm) = &mut self.vm {
            match vm.try_wait() {
                Ok(None) => return self.measure(),
                // Its supervisor has told that in the file before it has gone, unless it was killed.
                Ok(Some(_)) | Err(VmError::Gone) => self.note_end(journal)?,
                Err(error) => return Err(error.into()),
            }
        }
        // One that was wanted and has never started is that again.
        if self.last == 0 || self.has_ended(journal) {
            self.last += 1;
            journal.note(&self.name, self.last, What::Wanted)?;
        }
        self.start(program, networks, journal)?;
        self.measure()
    }

    fn has_ended(&self, journal: &Journal) -> bool {
        let mut told = journal.of(&self.name, self.last);
        told.any(|what| matches!(what, What::Ended(_) | What::Lost))
    }

    /// Its last VM, if that runs; if it has ended, that is noted.
    fn find(&mut self, journal: &mut Journal) -> Done {
        let since = Instant::now();
        while !self.has_ended(journal) {
            match Instance::attach(&self.own("sock")) {
                Ok(running) => {
                    println!("{}: found, process {}", self.name, running.pid());
                    return self.hold(running, journal);
                }
                Err(VmError::Unattached { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            // Nobody listens: it has not begun, or is over, or about to be one of these. Its socket is made before all else, and
            // removed when it is told how it has ended.
            let is_there = self.own("sock").exists();
            let has_started = journal
                .of(&self.name, self.last)
                .any(|it| *it == What::Started);
            match (is_there || has_started, since.elapsed() > SETTLING) {
                _ if self.own("outcome").exists() => return self.note_end(journal),
                (true, true) => return self.note_end(journal),
                (true, false) => std::thread::sleep(Duration::from_millis(1)),
                (false, _) => return Ok(()),
            }
        }
        Ok(())
    }

    fn hold(&mut self, running: Running, journal: &mut Journal) -> Done {
        self.vm = Some(running);
        self.note_start(journal)
    }

    fn note_start(&self, journal: &mut Journal) -> Done {
        let is_noted = journal
            .of(&self.name, self.last)
            .any(|what| *what == What::Started);
        match is_noted {
            true => Ok(()),
            false => journal.note(&self.name, self.last, What::Started),
        }
    }

    /// Notes how its last VM has ended, which is told in a file by then.
    fn note_end(&mut self, journal: &mut Journal) -> Done {
        self.vm = None;
        let told = fs::read_to_string(self.own("outcome")).unwrap_or_default();
        let what = serde_json::from_str(&told).map_or(What::Lost, What::Ended);
        println!("{}: had ended: {}", self.name, told.trim());
        self.note_start(journal)?;
        journal.note(&self.name, self.last, what)
    }

    /// Starts its next VM.
    fn start(
        &mut self,
        program: (&str, &str),
        networks: &mut Networks,
        journal: &mut Journal,
    ) -> Done {
        let mut started = self.begin(program, *networks != Networks::Refused);
        // The one that was on its way when this agent's former life ended has the socket.
        if started.is_err()
            && let Ok(running) = Instance::attach(&self.own("sock"))
        {
            started = Ok(running);
        } else if let Err(why) = &started
            && *networks == Networks::Untried
            && let Ok(running) = self.begin(program, false)
        {
            eprintln!("tenants have no networks: {}", causes(why.as_ref()));
            *networks = Networks::Refused;
            started = Ok(running);
        }
        let started = started?;
        println!("{}: started, process {}", self.name, started.pid());
        self.hold(started, journal)?;
        if let Some(address) = self.address()? {
            println!("{}: {address}", self.name);
            *networks = Networks::Had;
        }
        // Where it would begin again, if this host were lost.
        Client::to(&self.own("sock"))?.save(&self.file("snapshot"))?;
        Ok(())
    }

    fn begin(&self, (kernel, cmdline): (&str, &str), has_network: bool) -> Done<Running> {
        let mut config = VmConfig::builder().kernel(kernel).cmdline(cmdline);
        if has_network {
            let net = format!("tap,egress=none,subnet=10.108.0.{}/30", 4 * self.number);
            config = config.net(net.parse::<Net>()?);
        }
        let config = config
            .memory(64.mib())
            .cpu_quota("0.1".parse::<CpuQuota>()?)
            .best_effort(true)
            .vsock(Vsock::new(self.own("vsock")))
            .build()?;
        let mut surroundings = Surroundings::default();
        surroundings.outlives = true;
        surroundings.control = Some(self.own("sock"));
        surroundings.outcome = Some(self.own("outcome"));
        // What outlives this program must not hold what that has open: whoever reads its standard error would wait for it.
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.file("log"))?;
        surroundings.log = Some(log.into());
        Ok(Instance::start(config, surroundings)?)
    }

    /// How its VM is reached, if it has a network.
    fn address(&self) -> Done<Option<String>> {
        Ok(Client::to(&self.own("sock"))?.interfaces()?.pop())
    }

    /// What it has done, each second, in a file that is always whole.
    fn measure(&mut self) -> Done {
        if self.measured.is_some_and(|at| at.elapsed() < SCRAPED) {
            return Ok(());
        }
        self.measured = Some(Instant::now());
        let text = Client::to(&self.own("sock"))?.metrics()?;
        fs::write(self.file("metrics.new"), text)?;
        Ok(fs::rename(self.file("metrics.new"), self.file("metrics"))?)
    }

    fn end(&mut self, journal: &mut Journal) -> Done {
        if self.last > 0 {
            self.find(journal)?;
        }
        if let Some(vm) = &mut self.vm {
            let Outcome { reason, code, .. } = vm.stop(PATIENCE)?;
            println!("{}: {reason:?}, code {code:?}", self.name);
            self.note_end(journal)?;
        }
        Ok(())
    }
}

/// What went wrong, and why.
fn causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    let words: Vec<String> = causes.map(ToString::to_string).collect();
    words.join(": ")
}
