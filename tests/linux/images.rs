//! `kvmlet run` of an image of layers in the store: what its service sees, what is known of it, and the image that is made
//! of what has changed in it.

use crate::harness::Test;
use crate::script::Script;
use kvmlet_image::layer::LIMITS;
use kvmlet_image::reference::Reference;
use kvmlet_image::store::Store;
use std::fs::{metadata, read_dir, read_link, read_to_string};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use tar::{Builder, EntryType, Header};

pub const TESTS: &[Test] = &[("an_image_of_layers_is_run_as_it_says", run)];

/// The first argument by which this executable is the service, or makes its image.
const SERVICE: &str = "--in-an-image";
const MAKER: &str = "--make-an-image";
/// By which it changes files of its image, has the service end, and tells what is in an image of the store.
const CHANGER: &str = "--change-files";
const ENDER: &str = "--have-it-end";
const LOOKER: &str = "--look-at-an-image";
const END: &str = "/end";

/// As a program. `None` if it was not called so.
pub fn program() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next()?.as_str() {
        MAKER => {
            make();
            Some(ExitCode::SUCCESS)
        }
        SERVICE => {
            tell(&arguments.collect::<Vec<_>>());
            while metadata(END).is_err() {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            Some(ExitCode::from(7))
        }
        CHANGER => {
            change();
            Some(ExitCode::SUCCESS)
        }
        ENDER => {
            std::fs::write(END, "").unwrap();
            Some(ExitCode::SUCCESS)
        }
        LOOKER => {
            look_at(&arguments.next().unwrap());
            Some(ExitCode::SUCCESS)
        }
        _ => None,
    }
}

/// What the service sees of its image.
fn tell(arguments: &[String]) {
    let names = |path: &str| {
        let mut names: Vec<_> = read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names.join(" ")
    };
    let text = |path: &str| read_to_string(path).unwrap_or_else(|error| error.kind().to_string());
    let variable = |name| std::env::var(name).unwrap_or_default();
    // SAFETY: neither has a condition.
    let ids = unsafe { (libc::getuid(), libc::getgid()) };
    println!("arguments {arguments:?} as {ids:?}");
    println!("in {}", std::env::current_dir().unwrap().display());
    println!(
        "A={} B={} HOME={}",
        variable("A"),
        variable("B"),
        variable("HOME")
    );
    println!(
        "dir: {}; opaque: {}; gone: {}",
        names("/dir"),
        names("/opaque"),
        text("/gone")
    );
    println!("changed: {}, kept: {}", text("/changed"), text("/dir/kept"));
    let found = metadata("/set-uid").unwrap();
    println!(
        "set-uid: {:o} of {}:{}",
        found.mode(),
        found.uid(),
        found.gid()
    );
    println!(
        "large: {}",
        text("/dir/large").bytes().map(u64::from).sum::<u64>()
    );
    println!(
        "hosts is a link: {}, and kept: {}",
        read_link("/etc/hosts").is_ok(),
        text("/dir/hosts")
    );
    println!(
        "hosts has it: {}",
        text("/etc/hosts").contains("10.9.8.7\tneighbour")
    );
}

/// Of each kind of change one.
fn change() {
    std::fs::write("/dir/new", vec![b'n'; 70_000]).unwrap();
    std::fs::write("/changed", "4").unwrap();
    std::fs::remove_file("/dir/kept").unwrap();
    std::fs::remove_dir_all("/opaque").unwrap();
    std::fs::create_dir("/opaque").unwrap();
    std::os::unix::fs::symlink("/nowhere", "/opaque/link").unwrap();
    std::os::unix::fs::chown("/set-uid", Some(13), Some(13)).unwrap();
}

/// What an image of the store has of that, and what is said of it.
fn look_at(name: &str) {
    let store = Store::of_user().unwrap();
    let image = store.find(name).unwrap().unwrap().image;
    let files = store.files(&image).unwrap();
    let names = |path| {
        let names = files.names(path).into_iter().map(String::from_utf8);
        let names: Result<Vec<_>, _> = names.collect();
        names.unwrap().join(" ")
    };
    let read = |path| files.read(path, 100_000).unwrap();
    let new = read("dir/new").map(|all| (all.len(), all.iter().all(|byte| *byte == b'n')));
    let changed = read("changed").map(|all| String::from_utf8(all).unwrap());
    println!("{}; {}; {new:?} {changed:?}", names("dir"), names("opaque"));
    let at = files.tree().at([&b"set-uid"[..]]).unwrap();
    let owner = &files.tree().node(at).attributes;
    println!(
        "{}:{} {} layers",
        owner.uid,
        owner.gid,
        image.config.layers.len()
    );
}

/// A layer's archive, entry by entry.
struct Layer(Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn add(mut self, kind: EntryType, path: &str, mode: u32, owner: u64, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_size(content.len() as u64);
        self.0.append_data(&mut header, path, content).unwrap();
        self
    }

    fn file(self, path: &str, content: &[u8]) -> Self {
        self.add(EntryType::Regular, path, 0o644, 0, content)
    }

    fn link(mut self, path: &str, target: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        self.0.append_link(&mut header, path, target).unwrap();
        self
    }

    fn archive(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// Three layers: the second takes things away, the third changes some.
fn layers() -> [Vec<u8>; 3] {
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let large: Vec<u8> = (0..300_000_u32).map(|at| b'a' + (at % 23) as u8).collect();
    let lowest = Layer::new()
        .add(EntryType::Regular, "test", 0o755, 0, &program)
        .file(
            "etc/passwd",
            b"root:x:0:0::/root:\napp:x:1000:1001::/home/app:\n",
        )
        .link("etc/hosts", "/dir/hosts")
        .file("dir/hosts", b"mine")
        .file("dir/kept", b"1")
        .file("dir/taken", b"1")
        .file("opaque/lower", b"1")
        .file("gone", b"1")
        .file("changed", b"1")
        .add(EntryType::Regular, "set-uid", 0o4755, 12, b"1");
    let middle = Layer::new()
        .file(".wh.gone", b"")
        .file("dir/.wh.taken", b"")
        .file("opaque/upper", b"2")
        .file("opaque/.wh..wh..opq", b"")
        .file("changed", b"2");
    let highest = Layer::new().file("changed", b"3").file("dir/large", &large);
    [lowest, middle, highest].map(Layer::archive)
}

/// Puts the image into this user's store.
fn make() {
    let store = Store::of_user().unwrap();
    let layers = layers().map(|layer| store.add_layer(&layer[..], &LIMITS).unwrap());
    let ids: Vec<_> = layers
        .iter()
        .map(|layer| format!("\"{}\"", layer.diff_id))
        .collect();
    let config = format!(
        r#"{{"architecture": "amd64", "os": "linux", "rootfs": {{"type": "layers", "diff_ids": [{}]}}, "config": {{
            "Entrypoint": ["/test", "{SERVICE}"], "Cmd": ["of", "image"], "Env": ["A=image", "B=image"],
            "WorkingDir": "/made/here", "User": "app", "Labels": {{"of": "image"}}}}}}"#,
        ids.join(", ")
    );
    let name = Reference::parse("test/three-layers").unwrap();
    store
        .add_image(config.as_bytes(), &layers, &[name])
        .unwrap();
}

fn run() {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: only root has a store that can be put elsewhere by a mount");
    }
    let place = tempfile::tempdir().unwrap();
    let script = r#"
        set -eu; mount -t tmpfs tmpfs /var/lib; "$TEST" --make-an-image; trap '$K rm -f three >/dev/null' EXIT
        $K run --name three -e B=said --add-host neighbour:10.9.8.7 --pull never test/three-layers >out & run=$!
        until grep 'hosts has it' out >/dev/null; do kill -0 $run; sleep 0.2; done
        $K exec -u 0 three /test --change-files; $K diff three
        $K commit -a somebody -m 'as it is' --change 'CMD ["committed"]' --change 'ENV C=3' three made:1 >id
        $K exec -u 0 three /test --have-it-end
        code=0; wait $run || code=$?
        cat out; echo $code
        $K ps -a --no-trunc --format '{{.Image}} {{.Command}} {{.Labels}}'
        "$TEST" --look-at-an-image made:1; [ $(cat id) = $($K images -q --no-trunc made) ]
        $K image inspect --format '{{json .Config.Cmd}} {{json .Config.Entrypoint}} {{json .Config.Env}} {{.Config.User}} {{.Author}}' made:1
        $K image history --format '{{.Comment}}' made:1 | head -n 1
        $K image check
        "#;
    let script = Script::new(script, place.path(), 1).env("TEST", std::env::current_exe().unwrap());
    let (out, err) = script.run();
    let large: u64 = (0..300_000_u64).map(|at| u64::from(b'a') + at % 23).sum();
    let changed = "C /changed\nC /dir\nD /dir/kept\nA /dir/new\nA /made\nA /made/here\nC /opaque\nA /opaque/link\nC /set-uid\n";
    let told = format!(
        "arguments [\"of\", \"image\"] as (1000, 1001)\nin /made/here\nA=image B=said HOME=/home/app\n\
         dir: hosts kept large; opaque: upper; gone: entity not found\nchanged: 3, kept: 1\nset-uid: 104755 of 12:12\n\
         large: {large}\nhosts is a link: false, and kept: mine\nhosts has it: true\n7\n\
         test/three-layers \"/test --in-an-image of image\" of=image\n"
    );
    let made = "hosts large new; link; Some((70000, true)) Some(\"4\")\n13:13 4 layers\n\
        [\"committed\"] [\"/test\",\"--in-an-image\"] [\"A=image\",\"B=image\",\"C=3\"] app somebody\nas it is\n\
        4 layers and 2 images are as they should be\n";
    assert_eq!(out, format!("{changed}{told}{made}"), "{err}");
}
