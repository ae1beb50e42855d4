//! From a description to a running process.

use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;
use core::net::IpAddr;

use kvmlet_contract::channel::{CHANGED_NAMES, CHANGES, Description, Role};
use kvmlet_contract::{Account, NetworkSpec, ServiceSpec, User};

use super::process::{Ends, Process};
use crate::launch::{Launch, Stdio, name};
use crate::sys::{self, Errno, File};
use crate::tools::{self, Tool};
use crate::{Failure, etc, layer, mounts, network, place, root, service, service_file};

/// Starts what is described. Where the description is silent, the image says who the process is and where it starts, and to
/// the service what it is, whose machine is prepared first.
///
/// Its machine has these addresses.
pub fn start(
    description: &Description<'_>,
    role: Role,
    addresses: &[IpAddr],
) -> Result<Process, Failure> {
    let image = match role {
        Role::Tool => ServiceSpec::default(),
        // As its service has it, but for the command. Whatever has become of that file, somebody may want to look at it.
        Role::Exec => ServiceSpec {
            command: Vec::new(),
            ..service_file().unwrap_or_default()
        },
        Role::Service => {
            prepare_machine(description, addresses)?;
            service_file()?
        }
    };
    let own = |text: &String| service::c_string(text);
    let image_arguments: Vec<CString> = image.command.iter().map(own).collect();
    let image_variables = service::variables(&image);
    let image_workdir = image.workdir.as_ref().map(own);
    let changes = root::changes();
    let (stdio, ends) = streams(description)?;
    let launch = Launch {
        program: (role == Role::Tool).then_some(tools::OWN_PROGRAM),
        arguments: match role {
            Role::Tool => tool(description, changes.as_deref())?,
            Role::Exec | Role::Service => arguments(description, &image_arguments, role)?,
        },
        variables: variables(description, &image_variables),
        workdir: description
            .workdir
            .or(image_workdir.as_deref())
            .unwrap_or(c"/"),
        make_workdir: description.make_workdir,
        user: Some(user(description, image.user)?),
        groups: groups(description)?,
        stdio: match &stdio {
            Theirs::Streams(files) => Stdio::Streams(files.each_ref().map(File::number)),
            Theirs::Terminal(slave) => Stdio::Terminal(slave.number()),
        },
    };
    let pid = launch.start()?;
    Process::new(pid, ends).map_err(|e| format!("keep the streams of the process: {e}").into())
}

/// What a service's machine is to have beside the service.
fn prepare_machine(description: &Description<'_>, addresses: &[IpAddr]) -> Result<(), String> {
    let networks = description.networks().map(|text| {
        NetworkSpec::from_parameter_value(text).map_err(|e| format!("configure the network: {e}"))
    });
    let networks: Vec<NetworkSpec> = networks.collect::<Result<_, _>>()?;
    if !networks.is_empty() {
        network::configure(&networks)?;
    }
    if let Some(name) = description.hostname {
        sys::sethostname(name).map_err(|e| format!("set the host name \"{name}\": {e}"))?;
        let mut all = addresses.to_vec();
        all.extend(networks.iter().map(|network| network.address));
        etc::name_machine(name, &all, description.hosts())?;
    }
    // All of them before the first mount, which a layer over the root would have to take along.
    let _ = layer::change(|| {
        let mut places = description
            .mounts()
            .map(|mount| place::open_made(mount.target));
        places.try_for_each(|made| made.map(drop))
    });
    for mount in description.mounts() {
        mounts::mount_asked(&mount)?;
    }
    Ok(())
}

fn arguments<'a>(
    description: &Description<'a>,
    image: &'a [CString],
    role: Role,
) -> Result<Vec<&'a CStr>, String> {
    let mut arguments = Vec::with_capacity(description.arguments.max(image.len()).max(1));
    arguments.extend(description.arguments());
    if arguments.is_empty() {
        arguments.extend(image.iter().map(|it| &**it));
    }
    match (arguments.is_empty(), role) {
        (true, Role::Service) => arguments.push(service::DEFAULT_COMMAND),
        (true, _) => return Err("execute a command: none is said".into()),
        (false, _) => {}
    }
    Ok(arguments)
}

/// The arguments of one of the agent's own programs: those that are described, but where it is about the changes of the root.
fn tool<'a>(
    description: &Description<'a>,
    changes: Option<&'a CStr>,
) -> Result<Vec<&'a CStr>, String> {
    let mut arguments: Vec<&CStr> = description.arguments().collect();
    let name = arguments.first().copied().unwrap_or_default();
    if Tool::named(name).is_none() {
        let name = name.to_string_lossy();
        return Err(format!(
            "run the agent's tool \"{name}\": it has none of that name"
        ));
    }
    if matches!(name.to_str(), Ok(CHANGES | CHANGED_NAMES)) {
        let changes = changes.ok_or(
            "tell what has changed of the root: it is read-only, or a disk without a layer above",
        )?;
        arguments.truncate(1);
        arguments.push(changes);
    }
    Ok(arguments)
}

/// The image's variables, but for those that the description has as well, and the description's.
fn variables<'a>(description: &Description<'a>, image: &'a [CString]) -> Vec<&'a CStr> {
    // Room for those that are always there, too.
    let mut variables = Vec::with_capacity(description.variables + image.len() + 3);
    let described = |variable: &CStr| description.variables().any(|it| name(it) == name(variable));
    variables.extend(image.iter().map(|it| &**it).filter(|it| !described(it)));
    variables.extend(description.variables());
    variables
}

fn user(description: &Description<'_>, image: Option<User>) -> Result<User, String> {
    match description.user {
        None => Ok(image.unwrap_or(User::ROOT)),
        Some(text) => User::parse("user", text).map_err(|e| format!("become another user: {e}")),
    }
}

fn groups(description: &Description<'_>) -> Result<Vec<Account>, String> {
    let groups = description.groups().map(|text| {
        Account::parse(text).ok_or_else(|| format!("join the group \"{text}\": there is none"))
    });
    groups.collect()
}

/// The process's ends of its streams.
enum Theirs {
    Streams([File; 3]),
    Terminal(File),
}

fn streams(description: &Description<'_>) -> Result<(Theirs, Ends), String> {
    match (description.detached, description.terminal) {
        (true, _) => null_streams(),
        (false, None) => pipes(description.input),
        (false, Some(size)) => terminal(description.input).inspect(|(_, ends)| {
            if let Some(file) = &ends.stdout {
                let _ = sys::set_window_size(file.number(), size);
            }
        }),
    }
    .map_err(|e| format!("make the streams of the process: {e}"))
}

fn null() -> Result<File, Errno> {
    File::open(c"/dev/null", sys::O_RDWR | sys::O_NOCTTY)
}

fn null_streams() -> Result<(Theirs, Ends), Errno> {
    let files = [null()?, null()?, null()?];
    let ends = Ends {
        detached: true,
        ..Ends::default()
    };
    Ok((Theirs::Streams(files), ends))
}

fn pipes(with_input: bool) -> Result<(Theirs, Ends), Errno> {
    let (stdin, input) = if with_input {
        let (stdin, input) = File::pipe()?;
        input.do_not_block()?;
        (stdin, Some(input))
    } else {
        (null()?, None)
    };
    let (out, stdout) = File::pipe()?;
    let (err, stderr) = File::pipe()?;
    out.do_not_block()?;
    err.do_not_block()?;
    let ends = Ends {
        input,
        stdout: Some(out),
        stderr: Some(err),
        ..Ends::default()
    };
    Ok((Theirs::Streams([stdin, stdout, stderr]), ends))
}

fn terminal(with_input: bool) -> Result<(Theirs, Ends), Errno> {
    let (master, slave) = File::terminal()?;
    master.do_not_block()?;
    let input = if with_input {
        Some(master.again()?)
    } else {
        None
    };
    let ends = Ends {
        input,
        stdout: Some(master),
        terminal: true,
        ..Ends::default()
    };
    Ok((Theirs::Terminal(slave), ends))
}
