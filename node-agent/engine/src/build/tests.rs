//! Building real images from real folders. All need root: the stages' file systems are mounted.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::images::tests::{Fixture, docker_archive, layer};
use crate::snapshot::Snapshots;

/// A store and a build context.
struct Kitchen {
    fixture: Fixture,
    context: tempfile::TempDir,
}

impl Kitchen {
    /// `None`, loudly, without root.
    fn new(files: &[(&str, &str)]) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: builds mount file systems and need root");
            return None;
        }
        let kitchen = Self { fixture: Fixture::new(), context: tempfile::tempdir().unwrap() };
        for (path, content) in files {
            kitchen.write(path, content);
        }
        Some(kitchen)
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.context.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // What stays as it is keeps its time, which is part of a layer.
        if fs::read_to_string(&path).ok().as_deref() != Some(content) {
            fs::write(path, content).unwrap();
        }
    }

    fn request(&self) -> BuildRequest {
        BuildRequest { context: self.context.path().to_owned(), tags: vec!["out".to_owned()], ..Default::default() }
    }

    fn build_with(&self, dockerfile: &str, change: impl FnOnce(&mut BuildRequest)) -> Result<Image, BuildError> {
        self.write("Dockerfile", dockerfile);
        let mut request = self.request();
        change(&mut request);
        build(&self.fixture.store, &request, &mut |_| {})
    }

    fn build(&self, dockerfile: &str) -> Image {
        self.build_with(dockerfile, |_| {}).unwrap()
    }

    #[track_caller]
    fn refuse(&self, dockerfile: &str, words: &str) {
        let error = self.build_with(dockerfile, |_| {}).unwrap_err().to_string();
        assert!(error.contains(words), "{error:?} should say {words:?}");
        assert_eq!(self.fixture.store.get("out").unwrap(), None);
    }

    /// Looks at the built image's file system.
    fn see<T>(&self, look: impl FnOnce(&Path) -> T) -> T {
        let snapshots = Snapshots::open(self.fixture.store.clone()).unwrap();
        let rootfs = snapshots.prepare("c", "out", &[]).unwrap();
        snapshots.attach(&rootfs).unwrap();
        let seen = look(&rootfs.path);
        snapshots.remove("c").unwrap();
        seen
    }

    /// Every path of the built image, sorted; folders with a slash.
    fn paths(&self) -> Vec<String> {
        fn walk(root: &Path, dir: &Path, out: &mut Vec<String>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                if fs::symlink_metadata(&path).unwrap().is_dir() {
                    out.push(name + "/");
                    walk(root, &path, out);
                } else {
                    out.push(name);
                }
            }
        }
        self.see(|root| {
            let mut out = Vec::new();
            walk(root, root, &mut out);
            out.sort();
            out
        })
    }

    fn config(&self) -> serde_json::Value {
        let record = self.fixture.store.record("out").unwrap();
        serde_json::from_slice(&self.fixture.store.blobs().read(&record.id).unwrap()).unwrap()
    }
}

#[test]
fn an_image_from_scratch_holds_the_files_and_the_configuration_asked_for() {
    let Some(kitchen) = Kitchen::new(&[("app", "binary"), ("etc/app.conf", "x"), ("etc/d/deep", "y")]) else { return };
    let image = kitchen.build(
        "FROM scratch\nARG DIR=/srv\nENV HOME=$DIR/home LANG=\"C UTF\"\nLABEL by=\"reeve build\"\nWORKDIR $DIR/./app\n\
         COPY app bin/\nCOPY --chmod=600 --chown=7:8 etc /etc/\nEXPOSE 80 8000-8001/udp\nVOLUME /data\nSTOPSIGNAL SIGINT\n\
         USER 7:8\nENTRYPOINT [\"bin/app\"]\nCMD [\"--serve\"]\n",
    );
    assert_eq!(image.tags, ["docker.io/library/out:latest"]);
    assert_eq!((image.user.as_str(), image.size_bytes), ("7:8", 8));
    let all = ["etc/", "etc/app.conf", "etc/d/", "etc/d/deep", "srv/", "srv/app/", "srv/app/bin/", "srv/app/bin/app"];
    assert_eq!(kitchen.paths(), all);
    kitchen.see(|root| {
        let conf = fs::metadata(root.join("etc/app.conf")).unwrap();
        assert_eq!((conf.uid(), conf.gid(), conf.permissions().mode() & 0o7777), (7, 8, 0o600));
        let app = fs::metadata(root.join("srv/app/bin/app")).unwrap();
        assert_eq!((app.uid(), app.gid()), (0, 0));
    });
    let config = &kitchen.config()["config"];
    assert_eq!(config["Entrypoint"], serde_json::json!(["bin/app"]));
    assert_eq!(config["Cmd"], serde_json::json!(["--serve"]));
    assert_eq!(config["WorkingDir"], "/srv/app");
    assert_eq!(config["StopSignal"], "SIGINT");
    assert_eq!(config["Labels"]["by"], "reeve build");
    assert_eq!(config["Env"][1], "HOME=/srv/home");
    assert_eq!(config["Env"][2], "LANG=C UTF");
    let ports = serde_json::json!({"80/tcp": {}, "8000/udp": {}, "8001/udp": {}});
    assert_eq!(config["ExposedPorts"], ports);
}

#[test]
fn what_a_base_image_has_is_kept_and_its_links_are_followed() {
    let Some(kitchen) = Kitchen::new(&[("tool", "t"), ("base/usr/bin/sh", "sh")]) else { return };
    symlink("usr/bin", kitchen.context.path().join("base/bin")).unwrap();
    kitchen.build("FROM scratch\nCOPY base /\nCMD [\"from-base\"]\nENV A=1\n");
    kitchen.fixture.store.tag("out", "base").unwrap();
    kitchen.build("FROM base\nCOPY tool /bin/\nENTRYPOINT run $A\n");
    assert_eq!(kitchen.paths(), ["bin", "usr/", "usr/bin/", "usr/bin/sh", "usr/bin/tool"]);
    let config = &kitchen.config()["config"];
    assert_eq!(config["Entrypoint"], serde_json::json!(["/bin/sh", "-c", "run $A"]));
    assert!(config.get("Cmd").is_none(), "a new entrypoint drops the base's command");
    assert!(config["Env"].as_array().unwrap().contains(&"A=1".into()));
}

#[test]
fn files_come_from_earlier_stages_and_from_other_images() {
    let Some(kitchen) = Kitchen::new(&[("a", "1"), ("b", "2")]) else { return };
    kitchen.fixture.load(&docker_archive(&["other:1"], &[layer(&[("etc/passwd", "app:x:55:66::/:/x\n")])], ""));
    kitchen.build(
        "FROM scratch AS build\nCOPY --chown=3:4 a /out/a\nFROM scratch AS broken\nRUN exit 1\nFROM other:1\n\
         COPY --from=build /out/ /got/\nCOPY --from=0 /out/a /zero\nCOPY --from=other:1 etc/passwd /p\nCOPY --chown=app b /b\n",
    );
    assert_eq!(kitchen.paths(), ["b", "etc/", "etc/passwd", "got/", "got/a", "p", "zero"]);
    kitchen.see(|root| {
        let owner = |path: &str| fs::metadata(root.join(path)).map(|meta| (meta.uid(), meta.gid())).unwrap();
        assert_eq!(owner("got/a"), (3, 4), "files of a stage keep their owner");
        assert_eq!(owner("b"), (55, 66));
    });
    kitchen
        .build_with("FROM scratch AS one\nCOPY a /a\nFROM scratch AS two\nCOPY b /b\n", |request| {
            request.target = Some("one".to_owned());
        })
        .unwrap();
    assert_eq!(kitchen.paths(), ["a"]);
}

#[test]
fn patterns_and_the_ignore_file_choose_what_is_copied() {
    let files =
        [("a.txt", ""), ("b.txt", ""), ("c.md", ""), ("d/e.txt", ""), ("d/keep/f", ""), ("d/no/g", ""), ("n/x", "")];
    let Some(kitchen) = Kitchen::new(&files) else { return };
    kitchen.write(".dockerignore", "b.txt\nd\n!d/keep\nn\n.dockerignore\nDockerfile\n");
    let keep = kitchen.context.path().join("d");
    fs::set_permissions(&keep, fs::Permissions::from_mode(0o710)).unwrap();
    kitchen.build("FROM scratch\nCOPY *.txt [x-z]* /globs/\nCOPY . /all/\n".replace(" [x-z]*", "").as_str());
    assert_eq!(
        kitchen.paths(),
        ["all/", "all/a.txt", "all/c.md", "all/d/", "all/d/keep/", "all/d/keep/f", "globs/", "globs/a.txt"]
    );
    let mode = kitchen.see(|root| fs::metadata(root.join("all/d")).unwrap().permissions().mode() & 0o7777);
    assert_eq!(mode, 0o710, "a folder on the way to what is taken back in is as it was");
    kitchen.fixture.store.remove("out").unwrap();
    kitchen.refuse("FROM scratch\n\nCOPY b.txt /\n", "Dockerfile:3: COPY failed: file not found in build context or excluded by .dockerignore: stat b.txt: file does not exist");
    kitchen.refuse("FROM scratch\nCOPY n /n\n", "excluded by .dockerignore: stat n");
    kitchen.write(".dockerignore", "ok\n[bad\n");
    kitchen.refuse("FROM scratch\n", ".dockerignore:2: syntax error in pattern");
}

/// `tar --sort=name -cf - x/y z | xz -9e`
const TAR_XZ: &str = "/Td6WFoAAATm1rRGAgAhARwAAAAQz1jM4Cf/AGpdADwLyyAOUCcI/OcFvm95VdZX0pGWxxuvi0yA+JIWi05zmxWzzPjQ5zM2\
    +C+ExgIPMUXhFx0tLvm99vvzp6rue9oeptO4SLZoWk71WAaUt1/OneU+ZWOULOsmOf3q6QfedYPTSloOQhWrVj8AAAAyKkJRksGWOwABhgGAUAAAI5I5\
    t7HEZ/sCAAAAAARZWg==";

#[test]
fn add_unpacks_local_archives_and_copy_does_not() {
    let Some(kitchen) = Kitchen::new(&[]) else { return };
    let archive = layer(&[("x/y", "1"), ("z", "2")]);
    fs::write(kitchen.context.path().join("files.tgz"), zstd::encode_all(archive.as_slice(), 1).unwrap()).unwrap();
    fs::write(kitchen.context.path().join("plain"), "no archive").unwrap();
    kitchen.build("FROM scratch\nADD files.tgz /in/\nADD plain /in/\nCOPY files.tgz /\n");
    assert_eq!(kitchen.paths(), ["files.tgz", "in/", "in/plain", "in/x/", "in/x/y", "in/z"]);
    use base64::Engine as _;
    let xz = base64::engine::general_purpose::STANDARD.decode(TAR_XZ).unwrap();
    fs::write(kitchen.context.path().join("rootfs.tar.xz"), &xz).unwrap();
    fs::write(kitchen.context.path().join("torn.xz"), &xz[..60]).unwrap();
    kitchen.build("FROM scratch\nADD rootfs.tar.xz /\nADD torn.xz /\n");
    assert_eq!(kitchen.paths(), ["torn.xz", "x/", "x/y", "z"]);
    kitchen.build("FROM scratch\nADD --unpack=false files.tgz /in/\nADD --unpack plain /in/\n");
    assert_eq!(kitchen.paths(), ["in/", "in/files.tgz", "in/plain"]);
    kitchen.fixture.store.remove("out").unwrap();
    fs::write(kitchen.context.path().join("a.bz2"), "BZh91AY").unwrap();
    kitchen.refuse("FROM scratch\nADD a.bz2 /\n", "Dockerfile:2: a.bz2: bzip2 archives are not supported");
    kitchen.refuse("FROM scratch\nADD git://127.0.0.1:1/x.git /\n", "Dockerfile:2: git fetch failed: ");
    kitchen.refuse("FROM scratch\nADD ftp://127.0.0.1:1/x /\n", "ADD over FTP is not supported");
    kitchen.refuse("FROM scratch\nADD --checksum=sha256:00 plain /\n", "checksum can't be specified for non-HTTP");
    kitchen.refuse("FROM scratch\nADD http://127.0.0.1:1/x /\n", "Dockerfile:2: http://127.0.0.1:1/x: ");
    let mut hostile = layer(&[("..x", "")]);
    hostile[..3].copy_from_slice(b"../");
    hostile[148..156].fill(b' ');
    let sum: u32 = hostile[..512].iter().map(|b| u32::from(*b)).sum();
    hostile[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    fs::write(kitchen.context.path().join("evil.tar"), hostile).unwrap();
    kitchen.refuse("FROM scratch\nADD evil.tar /\n", "leads out of the image's root");
}

#[test]
fn devices_and_pipes_are_copied_as_what_they_are() {
    use std::os::unix::fs::FileTypeExt as _;
    let Some(kitchen) = Kitchen::new(&[("d/f", "1")]) else { return };
    let dir = kitchen.context.path().join("d");
    let make = |name: &str, kind, dev| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, dir.join(name), kind, mode, dev).unwrap();
    };
    make("null", rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    make("pipe", rustix::fs::FileType::Fifo, 0);
    kitchen.build("FROM scratch\nCOPY --chown=1:2 d /d\n");
    kitchen.see(|root| {
        let null = fs::metadata(root.join("d/null")).unwrap();
        assert!(null.file_type().is_char_device() && null.rdev() == rustix::fs::makedev(1, 3) && null.uid() == 1);
        assert!(fs::metadata(root.join("d/pipe")).unwrap().file_type().is_fifo());
    });
}

#[test]
fn nothing_outside_of_the_context_gets_into_an_image() {
    let Some(kitchen) = Kitchen::new(&[("in", "1")]) else { return };
    let secret = tempfile::NamedTempFile::new().unwrap();
    let context = kitchen.context.path();
    symlink(secret.path(), context.join("abs")).unwrap();
    symlink("../..", context.join("up")).unwrap();
    symlink("in", context.join("fine")).unwrap();
    for source in ["../x", "in/../../x", "abs", "up", "up/etc/passwd", "up/*"] {
        let error = kitchen.build_with(&format!("FROM scratch\nCOPY {source} /x\n"), |_| {}).unwrap_err().to_string();
        let named = error.contains("forbidden path outside the build context") || error.contains("file does not exist");
        assert!(named && error.starts_with("Dockerfile:2: "), "{source}: {error}");
    }
    // Links below a copied folder are copied as links; where they lead is decided in the image.
    kitchen.build("FROM scratch\nCOPY fine /followed\nCOPY . /all/\n");
    kitchen.see(|root| {
        assert_eq!(fs::read_to_string(root.join("followed")).unwrap(), "1");
        assert_eq!(fs::read_link(root.join("all/abs")).unwrap(), secret.path());
    });
}

#[test]
fn a_pattern_that_nothing_fits_asks_for_nothing() {
    let Some(kitchen) = Kitchen::new(&[("package.json", "1"), ("d/f", "2")]) else { return };
    kitchen.build("FROM scratch\nCOPY package.json yarn.lock* *.none /app/\nCOPY none* /n/\n");
    assert_eq!(kitchen.paths(), ["app/", "app/package.json"]);
    kitchen.fixture.store.remove("out").unwrap();
    kitchen.refuse("FROM scratch\nCOPY package.json yarn.lock /app/\n", "stat yarn.lock: file does not exist");
    kitchen.refuse("FROM scratch\nCOPY yarn\\\\*lock /app/\n", "file does not exist");
}

#[test]
fn folders_that_a_copy_makes_are_not_like_the_source() {
    let Some(kitchen) = Kitchen::new(&[("d/sub/f", "1"), ("one.c", ""), ("two.c", "")]) else { return };
    for path in ["d", "d/sub"] {
        fs::set_permissions(kitchen.context.path().join(path), fs::Permissions::from_mode(0o700)).unwrap();
    }
    kitchen.build(
        "FROM scratch AS build\nCOPY --chown=3:4 d /made\nFROM scratch\nCOPY d /app\nCOPY --from=build /made /got\n\
         COPY --chown=5:6 --chmod=770 d/sub/f /new/deep/f\nCOPY --chmod=u=rwX,go=rX d /open\n\
         WORKDIR /w\nENV NONE=\nCOPY d/sub/f $NONE\nCOPY *.c /w\nCOPY d/sub/f ..\n",
    );
    let found = kitchen.see(|root| {
        let paths = ["app", "app/sub", "got", "got/sub", "new", "new/deep", "new/deep/f", "open/sub", "open/sub/f"];
        paths.map(|path| {
            let meta = fs::metadata(root.join(path)).unwrap();
            format!("{path} {:o} {}:{}", meta.mode() & 0o7777, meta.uid(), meta.gid())
        })
    });
    let expected = [
        "app 755 0:0",
        "app/sub 700 0:0",
        "got 755 0:0",
        "got/sub 700 3:4",
        "new 770 5:6",
        "new/deep 770 5:6",
        "new/deep/f 770 5:6",
        "open/sub 755 0:0",
        "open/sub/f 644 0:0",
    ];
    assert_eq!(found, expected);
    let below_w: Vec<String> = kitchen.paths().into_iter().filter(|path| path.starts_with('w')).collect();
    assert_eq!(below_w, ["w/", "w/f", "w/one.c", "w/two.c"]);
    assert!(kitchen.paths().contains(&"f".to_owned()));
}

#[test]
fn a_working_folder_belongs_to_whom_the_image_runs_as() {
    let Some(kitchen) = Kitchen::new(&[("passwd", "app:x:55:66::/:/x\n")]) else { return };
    kitchen.build(
        "FROM scratch\nWORKDIR /root\nUSER ghost\nWORKDIR /nobody\nCOPY passwd /etc/passwd\nUSER app\n\
         WORKDIR /home/app\nUSER 7:8\nWORKDIR /home/app/sub\nWORKDIR /root\n",
    );
    kitchen.see(|root| {
        let owner = |path: &str| fs::metadata(root.join(path)).map(|meta| (meta.uid(), meta.gid())).unwrap();
        let paths = ["root", "nobody", "home", "home/app", "home/app/sub"];
        assert_eq!(paths.map(owner), [(0, 0), (0, 0), (55, 66), (55, 66), (7, 8)]);
    });
}

#[test]
fn a_stage_has_the_arguments_of_the_stage_below_it_and_always_a_path() {
    let Some(kitchen) = Kitchen::new(&[]) else { return };
    kitchen.fixture.load(&docker_archive(&["bare:1"], &[layer(&[("f", "")])], ""));
    kitchen.build(
        "FROM bare:1 AS low\nARG V=1\nFROM low AS high\nENV W=$V S=$TARGETSTAGE\nARG TARGETSTAGE\nENV T=$TARGETSTAGE\n",
    );
    let env = kitchen.config()["config"]["Env"].clone();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(env, serde_json::json!(["A=b", path, "W=1", "S=", "T=high"]));
}

#[test]
fn what_another_machine_would_build_is_no_matter_unless_it_is_needed() {
    let Some(kitchen) = Kitchen::new(&[("f", "")]) else { return };
    kitchen.build(
        "FROM --platform=linux/vax other AS vax\nFROM --platform=windows/amd64 win AS windows\n\
         FROM scratch AS mighty\nRUN --security=insecure mount\n\
         FROM scratch AS own\nFROM --platform=$BUILDPLATFORM own\nCOPY f /\nEXPOSE 8080:80 127.0.0.1:1:53/UDP\n",
    );
    assert_eq!(kitchen.config()["config"]["ExposedPorts"], serde_json::json!({"80/tcp": {}, "53/udp": {}}));
}

#[test]
fn a_dockerfile_may_be_called_in_small_letters() {
    let Some(kitchen) = Kitchen::new(&[("dockerfile", "FROM scratch\nLABEL name=small\n")]) else { return };
    build(&kitchen.fixture.store, &kitchen.request(), &mut |_| {}).unwrap();
    assert_eq!(kitchen.config()["config"]["Labels"]["name"], "small");
    kitchen.build("FROM scratch\nLABEL name=big\n");
    assert_eq!(kitchen.config()["config"]["Labels"]["name"], "big");
}

#[test]
fn parents_are_made_of_whatever_lies_at_any_depth() {
    let files = [
        ("package.json", ""),
        ("a/package.json", ""),
        ("a/b/package.json", ""),
        ("a/b/x", ""),
        ("no/package.json", ""),
    ];
    let Some(kitchen) = Kitchen::new(&files) else { return };
    kitchen.write(".dockerignore", "no\n");
    kitchen.build("FROM scratch\nCOPY --parents **/package.json /p/\nCOPY --parents a/./b/** /q/\n");
    let expected = ["p/", "p/a/", "p/a/b/", "p/a/b/package.json", "p/a/package.json", "p/package.json"];
    assert_eq!(kitchen.paths(), [&expected[..], &["q/", "q/b/", "q/b/package.json", "q/b/x"]].concat());
}

#[test]
fn the_same_sources_give_the_same_image() {
    let Some(kitchen) = Kitchen::new(&[("z", "1"), ("a/b", "2"), ("a/a", "3")]) else { return };
    let Some(other) = Kitchen::new(&[("a/a", "3"), ("z", "1"), ("a/b", "2")]) else { return };
    let text = "FROM scratch\nWORKDIR /w\nCOPY . /w/\n";
    let at = |request: &mut BuildRequest| request.source_date_epoch = Some(1_700_000_000);
    let first = kitchen.build_with(text, at).unwrap();
    assert_eq!(first.id, other.build_with(text, at).unwrap().id);
    assert_eq!(first.created_at.unwrap().as_second(), 1_700_000_000);
    // Without a fixed time a build that changes nothing keeps the image it made before.
    let second = kitchen.build(text);
    assert_eq!(second.id, kitchen.build(text).id);
    kitchen.write("z", "changed");
    assert_ne!(second.id, kitchen.build(text).id);
}

#[test]
fn a_manifest_says_what_it_is_to_say() {
    let Some(kitchen) = Kitchen::new(&[]) else { return };
    let annotations = std::collections::BTreeMap::from([("org.example/key".to_owned(), "value".to_owned())]);
    let wanted = annotations.clone();
    let text = "FROM scratch\nCOPY Dockerfile /";
    let plain = kitchen.build(text);
    assert!(kitchen.fixture.store.annotations("out").unwrap().is_empty());
    let noted = kitchen.build_with(text, |request| request.annotations = wanted).unwrap();
    assert_eq!(noted.id, plain.id, "it is the same image");
    assert_eq!(kitchen.fixture.store.annotations("out").unwrap(), annotations);
}

#[test]
fn arguments_reach_the_stages_that_declare_them() {
    let Some(kitchen) = Kitchen::new(&[]) else { return };
    let text = "ARG BASE=scratch\nARG V=1\nFROM $BASE\nARG V\nARG W=w\nARG TARGETARCH\nENV V=$V W=$W ARCH=$TARGETARCH N=${NONE:-d}\n";
    kitchen
        .build_with(text, |request| {
            request.build_args = [("V".to_owned(), "2".to_owned())].into();
        })
        .unwrap();
    let arch = format!("ARCH={}", crate::images::manifest::architecture());
    assert_eq!(kitchen.config()["config"]["Env"].as_array().unwrap()[1..], ["V=2", "W=w", arch.as_str(), "N=d"]);
    let mut warnings = Vec::new();
    let mut request = kitchen.request();
    request.build_args = [("TYPO".to_owned(), String::new())].into();
    build(&kitchen.fixture.store, &request, &mut |step| warnings.push(step)).unwrap();
    assert!(matches!(&warnings[0], Progress::Warning(text) if text.contains("TYPO")));
    assert_eq!(warnings[1], Progress::Planned { steps: 5 });
    assert!(
        matches!(&warnings[2], Progress::Step { id: 1, stage: None, number: 1, total: 5, text } if text == "FROM $BASE")
    );
}

#[test]
fn what_cannot_be_built_is_refused_with_file_and_line() {
    let Some(kitchen) = Kitchen::new(&[("f", "1"), ("d/x", "2"), (".wh.f", ""), ("dir/f/x", "")]) else { return };
    for (dockerfile, words) in [
        (
            "FROM 127.0.0.1:1/nginx\n",
            "Dockerfile:1: FROM 127.0.0.1:1/nginx: no such image here, and failed to pull and unpack image",
        ),
        (
            "FROM BAD\n",
            "Dockerfile:1: FROM BAD: invalid reference format: repository name (library/BAD) must be lowercase",
        ),
        ("FROM --platform=linux/vax scratch\n", "Dockerfile:1: platform linux/vax is not supported"),
        ("FROM scratch\nRUN --security=insecure x\n", "Dockerfile:2: security mode \"insecure\" is not supported"),
        ("FROM scratch\nCOPY --chmod=u+q f /f\n", "Dockerfile:2: invalid chmod parameter: 'u+q'"),
        ("FROM scratch\nSTOPSIGNAL SIGFOO\n", "Dockerfile:2: invalid signal: SIGFOO"),
        ("FROM scratch\nEXPOSE 80/tpc\n", "Dockerfile:2: invalid proto: tpc"),
        ("FROM scratch\nCOPY f d /x\n", "Dockerfile:2: When using COPY with more than one source file"),
        ("FROM scratch\nCOPY f /f\nCOPY d /f\n", "Dockerfile:3: cannot copy to non-directory: /f"),
        ("FROM scratch\nCOPY f /f\nCOPY f /f/g\n", "Dockerfile:3: "),
        ("FROM scratch\nCOPY f /f\nCOPY f /f/\n", "Dockerfile:3: cannot copy to non-directory: /f/"),
        ("FROM scratch\nCOPY d /t/f\nCOPY f /t/\n", "Dockerfile:3: cannot replace to directory /t/f with file"),
        ("FROM scratch\nCOPY f /f\nCOPY dir /\n", "Dockerfile:3: cannot copy to non-directory: /f"),
        (
            "FROM scratch\nCOPY .wh.f /x\nCOPY .wh.f /\n",
            "Dockerfile:3: .wh.f: image layers cannot hold files whose names",
        ),
        (
            "FROM scratch\nCOPY --chown=bob f /f\n",
            "Dockerfile:2: unable to convert uid/gid chown string to host mapping",
        ),
        ("FROM scratch\nCOPY --chmod=9 f /f\n", "Dockerfile:2: invalid chmod parameter: '9'"),
        (
            "FROM scratch\nCOPY --from=127.0.0.1:1/x f /f\n",
            "Dockerfile:2: COPY --from 127.0.0.1:1/x: no such image here",
        ),
        ("FROM scratch\nEXPOSE 0\n", "Dockerfile:2: invalid containerPort: 0"),
        ("FROM scratch\nENV A=${B?}\n", "Dockerfile:2: B: is not allowed to be unset"),
        ("FROM scratch\nHEALTHCHECK --retries=x CMD y\n", "Dockerfile:2: invalid value of --retries"),
    ] {
        kitchen.refuse(dockerfile, words);
    }
    let error =
        |change: &dyn Fn(&mut BuildRequest)| kitchen.build_with("FROM scratch\n", change).unwrap_err().to_string();
    assert!(error(&|r| r.tags = vec!["A".to_owned()]).starts_with("invalid argument \"A\" for \"-t, --tag\" flag"));
    assert!(error(&|r| r.target = Some("x".to_owned())).contains("target stage \"x\" could not be found"));
    assert!(error(&|r| r.context = "/nowhere".into()).starts_with("unable to prepare context: path \"/nowhere\""));
    let missing = error(&|r| r.dockerfile = Some("/nowhere/Dockerfile".into()));
    assert!(missing.starts_with("failed to read dockerfile: open /nowhere/Dockerfile: No such file"), "{missing}");
    assert!(kitchen.fixture.store.list().unwrap().is_empty());
    let tmp = fs::read_dir(kitchen.fixture.store.dir().join("tmp")).unwrap().count();
    assert_eq!(tmp, 0, "a failed build leaves nothing half-written");
}

/// Answers every request with the same bytes; its address.
fn web(answer: &'static str) -> String {
    use std::io::Write as _;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = std::io::Read::read(&mut stream, &mut request);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn files_from_the_web_are_checked_and_not_unpacked() {
    let Some(kitchen) = Kitchen::new(&[]) else { return };
    let address = web(
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nabc",
    );
    let sum = crate::images::Digest::of(b"abc");
    kitchen.build(&format!(
        "FROM scratch\nADD --checksum={sum} http://{address}/d/f.tar?x /in/\nADD http://{address} /named\n"
    ));
    assert_eq!(kitchen.paths(), ["in/", "in/f.tar", "named"]);
    kitchen.see(|root| {
        let file = fs::metadata(root.join("in/f.tar")).unwrap();
        assert_eq!((file.mtime(), file.permissions().mode() & 0o7777), (784_111_777, 0o600));
    });
    kitchen.fixture.store.remove("out").unwrap();
    let wrong = crate::images::Digest::of(b"other");
    kitchen.refuse(&format!("FROM scratch\nADD --checksum={wrong} http://{address}/f /\n"), "digest mismatch");
    kitchen.refuse(&format!("FROM scratch\nADD http://{address}/ /in/\n"), "cannot determine filename from url");
    let missing = web("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    kitchen.refuse(&format!("FROM scratch\nADD http://{missing}/f /\n"), "invalid response status 404");
}

#[test]
fn what_a_copy_excludes_is_left_out_and_text_becomes_files() {
    let Some(kitchen) = Kitchen::new(&[("a/x.rs", ""), ("a/y.md", ""), ("a/d/z.md", ""), ("a/d/q", "")]) else {
        return;
    };
    kitchen.build("FROM scratch\nARG V=1\nCOPY --exclude=*.md --exclude=**/q* a /a/\nCOPY <<-one <<'two' /t/\n\tv=$V\none\n$V\ntwo\n");
    assert_eq!(kitchen.paths(), ["a/", "a/d/", "a/d/z.md", "a/x.rs", "t/", "t/one", "t/two"]);
    kitchen.build("FROM scratch\nCOPY --parents a/x.rs a/./d /p/\n");
    assert_eq!(kitchen.paths(), ["p/", "p/a/", "p/a/x.rs", "p/d/", "p/d/q", "p/d/z.md"]);
    kitchen.build("FROM scratch\nARG V=1\nCOPY <<-one <<'two' /t/\n\tv=$V\none\n$V\ntwo\n");
    kitchen.see(|root| {
        assert_eq!(fs::read_to_string(root.join("t/one")).unwrap(), "v=1\n");
        assert_eq!(fs::read_to_string(root.join("t/two")).unwrap(), "$V\n");
    });
}

/// A repository that `git daemon` serves, stopped when the test ends; `None`, loudly, without git.
struct Repository {
    daemon: std::process::Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Drop for Repository {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

impl Repository {
    fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let repository = dir.path().join("repo");
        fs::create_dir(&repository).unwrap();
        // In the foreground and without children of its own that outlive it: one connection after the other.
        let mut command = std::process::Command::new("git");
        command.args(["daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1"]);
        command.arg(format!("--port={port}")).arg(format!("--base-path={}", dir.path().display()));
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let Ok(daemon) = command.spawn() else {
            eprintln!("SKIPPED: no git on PATH (apt-get install git)");
            return None;
        };
        let own = Self { daemon, port, dir };
        own.git(&["init", "-q", "-b", "main", "."]);
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(own);
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        eprintln!("SKIPPED: git daemon does not come up");
        None
    }

    fn git(&self, args: &[&str]) -> String {
        let mut command = std::process::Command::new("git");
        command.args(["-c", "user.name=t", "-c", "user.email=t@example.com"]).args(args);
        command.env("GIT_COMMITTER_DATE", "1700000000 +0000").env("GIT_CONFIG_GLOBAL", "/dev/null");
        let output = command.current_dir(self.dir.path().join("repo")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn commit(&self, files: &[(&str, &str)]) -> String {
        for (path, content) in files {
            let path = self.dir.path().join("repo").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", "x"]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn url(&self) -> String {
        format!("git://127.0.0.1:{}/repo", self.port)
    }
}

#[test]
fn repositories_are_contexts_and_sources_of_add() {
    let (Some(kitchen), Some(repository)) = (Kitchen::new(&[]), Repository::start()) else { return };
    let first = repository.commit(&[("Dockerfile", "FROM scratch\nCOPY . /all/\n"), ("sub/f", "1")]);
    repository.git(&["tag", "v1"]);
    repository.commit(&[("sub/f", "22"), ("new", "x")]);
    let (url, store) = (repository.url(), &kitchen.fixture.store);
    let checkout = git::Checkout::fetch(store, &format!("{url}#v1")).unwrap();
    assert_eq!(checkout.commit(), first);
    let _other = ImageStore::open(store.dir(), reeve_api::clock::RealClock::shared()).unwrap();
    assert!(
        checkout.path().join("sub/f").exists(),
        "whoever opens the store meanwhile does not take it for a remainder"
    );
    let request = |context: &Path| BuildRequest {
        context: context.to_owned(),
        tags: vec!["out".to_owned()],
        ..BuildRequest::default()
    };
    let image = build(store, &request(checkout.path()), &mut |_| {}).unwrap();
    assert_eq!(kitchen.paths(), ["all/", "all/Dockerfile", "all/sub/", "all/sub/f"], "without its .git");
    drop(checkout);
    let again = git::Checkout::fetch(store, &format!("{url}#v1")).unwrap();
    let same = build(store, &request(again.path()), &mut |_| {}).unwrap();
    assert_eq!(same.id, image.id, "the same commit makes the same image");
    drop(again);
    kitchen.build(&format!("FROM scratch\nADD {url}#main:sub /in\nADD --keep-git-dir=true {url} /all/\n"));
    kitchen.see(|root| {
        assert_eq!(fs::read_to_string(root.join("in/f")).unwrap(), "22");
        assert_eq!(fs::metadata(root.join("in/f")).unwrap().mtime(), 1_700_000_000);
        assert!(root.join("all/.git/HEAD").exists() && root.join("all/new").exists());
    });
    kitchen.build(&format!("FROM scratch\nADD --checksum={first} {url}#v1 /in/\n"));
    kitchen.fixture.store.remove("out").unwrap();
    kitchen.refuse(&format!("FROM scratch\nADD --checksum={first} {url} /\n"), "expected checksum to match");
    kitchen.refuse(&format!("FROM scratch\nADD {url}#none /\n"), "Dockerfile:2: git fetch failed: ");
    let error = git::Checkout::fetch(store, &format!("{url}#main:nowhere")).unwrap_err();
    assert!(error.contains("nowhere: No such file"), "{error}");
    assert_eq!(fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0, "no checkout is left");
}

#[test]
fn what_a_base_image_copies_from_a_stage_is_built_for_it() {
    let Some(kitchen) = Kitchen::new(&[("a", "1")]) else { return };
    kitchen.build("FROM scratch\nONBUILD COPY --from=extra /a /x\n");
    kitchen.fixture.store.tag("out", "base").unwrap();
    kitchen.build("FROM scratch AS extra\nCOPY a /a\nFROM base\n");
    assert_eq!(kitchen.paths(), ["x"]);
}

#[test]
fn stages_tell_of_themselves_by_name() {
    let Some(kitchen) = Kitchen::new(&[("a", "1")]) else { return };
    kitchen.write("Dockerfile", "FROM scratch AS one\nCOPY a /a\nFROM scratch\nCOPY --from=one /a /b\n");
    let mut told = Vec::new();
    build(&kitchen.fixture.store, &kitchen.request(), &mut |progress| told.push(progress)).unwrap();
    let mut steps: Vec<String> = told
        .iter()
        .filter_map(|progress| match progress {
            Progress::Step { stage, number, total, text, .. } => {
                Some(format!("{} {number}/{total} {text}", stage.as_deref().unwrap_or_default()))
            }
            _ => None,
        })
        .collect();
    steps.sort();
    let expected = ["one 1/2 FROM scratch AS one", "one 2/2 COPY a /a"];
    let more = ["stage-1 1/2 FROM scratch", "stage-1 2/2 COPY --from=one /a /b"];
    assert_eq!(steps, [expected, more].concat());
    let done = told.iter().filter(|progress| matches!(progress, Progress::Done { .. })).count();
    assert_eq!(done, 4, "every step ends: {told:?}");
}
