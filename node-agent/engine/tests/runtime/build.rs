//! Commands in builds: real containers, real layers.

use std::path::Path;
use std::process::Command;

use reeve_engine::build::{BuildError, BuildRequest, Progress, Secret, build};
use reeve_engine::engine::{ContainerConfig, Image, Mount};

use crate::bed::Bed;

crate::tests![
    a_command_changes_the_image_and_says_what_it_does,
    a_command_that_fails_ends_the_build_with_its_line_and_code,
    a_command_runs_again_only_when_something_it_depends_on_changed,
    a_command_sees_what_is_mounted_and_the_image_does_not_keep_it,
    text_in_the_dockerfile_becomes_files_and_scripts,
    what_an_image_wants_of_those_who_build_on_it_happens_once,
    a_command_without_a_network_has_none,
    a_build_that_is_killed_leaves_no_process_behind,
    stages_that_do_not_need_each_other_are_built_at_the_same_time,
    a_stage_that_fails_ends_the_others_at_once,
    a_squashed_image_has_one_layer_upon_its_base_and_the_same_files,
    a_command_sees_of_the_context_what_is_not_ignored,
    a_cache_begins_as_what_a_stage_holds,
    a_command_is_led_to_the_agent_of_whoever_builds,
    a_proxy_that_is_given_is_known_by_both_its_names,
    what_an_image_calls_a_volume_can_be_written_in_a_read_only_root,
];

/// A bed and a build context.
struct Kitchen {
    bed: Bed,
    context: tempfile::TempDir,
}

/// What a build came to, and what it told.
struct Built {
    image: Result<Image, BuildError>,
    output: Vec<String>,
    cached: usize,
}

impl Kitchen {
    async fn new() -> Self {
        Self { bed: Bed::new().await, context: tempfile::tempdir().unwrap() }
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.context.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    async fn build_with(&self, dockerfile: &str, change: impl FnOnce(&mut BuildRequest)) -> Built {
        self.write("Dockerfile", dockerfile);
        let mut request = BuildRequest {
            context: self.context.path().to_owned(),
            tags: vec!["out".to_owned()],
            ..BuildRequest::default()
        };
        change(&mut request);
        let store = self.bed.engine.images().clone();
        let work = move || {
            let (mut output, mut cached) = (Vec::new(), 0);
            let image = build(&store, &request, &mut |progress| match progress {
                Progress::Output { line, .. } => output.push(line),
                Progress::Cached { .. } => cached += 1,
                _ => {}
            });
            Built { image, output, cached }
        };
        tokio::task::spawn_blocking(work).await.unwrap()
    }

    async fn build(&self, dockerfile: &str) -> Built {
        let built = self.build_with(dockerfile, |_| {}).await;
        built.image.as_ref().unwrap();
        built
    }

    async fn fails(&self, dockerfile: &str, words: &str) {
        let error = self.build_with(dockerfile, |_| {}).await.image.unwrap_err().to_string();
        assert!(error.contains(words), "{error:?} should say {words:?}");
    }

    /// What a shell script says in the image that was built.
    async fn ask(&self, script: &str) -> String {
        let image = self.bed.engine.images().get("out").unwrap().unwrap().id;
        let (code, said) = self.bed.run(ContainerConfig { image, ..self.bed.script("ask", script) }).await;
        assert_eq!(code, 0, "{said}");
        said.trim_end().to_owned()
    }

    async fn done(self) {
        let left = std::fs::read_dir(self.bed.dir().join("data/images/tmp")).unwrap().count();
        assert_eq!(left, 0, "a build leaves nothing half-written");
        self.bed.close().await;
    }
}

pub(crate) async fn a_command_changes_the_image_and_says_what_it_does() {
    let kitchen = Kitchen::new().await;
    kitchen.write("gone/a", "1");
    kitchen.write("stay", "2");
    let built = kitchen
        .build(
            "FROM busybox\nCOPY . /w/\nWORKDIR /w\nENV GREETING=hello\nARG WHO=world\n\
             RUN echo $GREETING $WHO >said && cat said && echo err >&2 && rm -r gone && ln said twice && ln -s said link\n\
             RUN true\nUSER 7:8\nRUN id -u >/tmp/me || id -u\n",
        )
        .await;
    assert!(built.output.contains(&"hello world".to_owned()) && built.output.contains(&"err".to_owned()));
    let said = kitchen
        .ask("cat /w/said; ls /w; stat -c %h /w/said; ls -a /dev/pipes /etc 2>&1 | grep -c resolv; echo $WHO.")
        .await;
    assert_eq!(said, "hello world\nDockerfile\nlink\nsaid\nstay\ntwice\n2\n0\n.");
    kitchen.done().await;
}

pub(crate) async fn a_command_that_fails_ends_the_build_with_its_line_and_code() {
    let kitchen = Kitchen::new().await;
    kitchen
        .fails(
            "FROM busybox\n\nRUN echo before; exit 3\n",
            "Dockerfile:3: process \"/bin/sh -c echo before; exit 3\" did not complete successfully: exit code: 3",
        )
        .await;
    kitchen
        .fails("FROM busybox\nRUN [\"/none\"]\n", "Dockerfile:2: process \"/none\" did not complete successfully")
        .await;
    kitchen.fails("FROM scratch\nRUN echo\n", "Dockerfile:2: process \"/bin/sh -c echo\"").await;
    assert!(kitchen.bed.engine.images().get("out").unwrap().is_none());
    kitchen.done().await;
}

pub(crate) async fn a_command_runs_again_only_when_something_it_depends_on_changed() {
    let kitchen = Kitchen::new().await;
    kitchen.write("f", "1\n");
    kitchen.write("other", "1");
    let text = "FROM busybox\nARG A=1\nRUN --mount=target=/src cat /src/f; echo $A; cat /proc/sys/kernel/random/uuid >/id\n\
                RUN true\nCOPY other /\n";
    let first = kitchen.build(text).await;
    assert_eq!((first.cached, first.output.as_slice()), (0, &["1".to_owned(), "1".to_owned()][..]));
    let again = kitchen.build(text).await;
    assert_eq!((again.cached, again.output.len()), (2, 0));
    assert_eq!(again.image.unwrap().id, first.image.unwrap().id);
    let given =
        kitchen.build_with(text, |request| drop(request.build_args.insert("A".to_owned(), "2".to_owned()))).await;
    assert_eq!((given.cached, given.output.last().unwrap().as_str()), (0, "2"));
    kitchen.write("f", "2\n");
    assert_eq!(kitchen.build(text).await.output, ["2", "1"]);
    let fresh = kitchen.build_with(text, |request| request.no_cache = true).await;
    assert_eq!((fresh.cached, fresh.output.len()), (0, 2));
    kitchen.bed.engine.images().remove("out").unwrap();
    kitchen.write("f", "1\n");
    assert_eq!(kitchen.build(text).await.cached, 2, "the layers are kept without the image");
    kitchen.bed.engine.images().prune().unwrap();
    assert_eq!(kitchen.build(text).await.cached, 0);
    kitchen.done().await;
}

pub(crate) async fn a_command_sees_what_is_mounted_and_the_image_does_not_keep_it() {
    let kitchen = Kitchen::new().await;
    kitchen.write("src/f", "from the context");
    kitchen.write("token", "s3cret");
    let text = "FROM busybox AS tools\nRUN echo tool >/tool\nFROM busybox\n\
        RUN --mount=type=secret,id=token --mount=type=secret,id=word,env=WORD --mount=type=secret,id=none \
            cat /run/secrets/token; echo; echo $WORD; stat -c %a /run/secrets/token; test ! -e /run/secrets/none\n\
        RUN --mount=type=bind,source=src,target=/s --mount=from=tools,source=/tool,target=/t/tool cat /s/f; echo; cat /t/tool; touch /s/x 2>/dev/null || echo ro\n\
        RUN --mount=type=bind,target=/c,rw touch /c/new && ls /c/new\n\
        RUN --mount=type=tmpfs,target=/tmpfs,size=1m echo x >/tmpfs/x && grep tmpfs /proc/mounts | grep -c size=1024k\n\
        RUN --mount=type=cache,target=/cache echo more >>/cache/log && wc -l </cache/log\n";
    let secrets = |request: &mut BuildRequest| {
        let token = request.context.join("token");
        request.secrets =
            [("token".to_owned(), Secret::File(token)), ("word".to_owned(), Secret::Env("HOME".to_owned()))].into();
    };
    let built = kitchen.build_with(text, secrets).await;
    let home = std::env::var("HOME").unwrap_or_default();
    built.image.unwrap();
    let expected = ["s3cret", home.as_str(), "400", "from the context", "tool", "ro", "/c/new", "1", "1"];
    assert_eq!(built.output, expected);
    assert!(!kitchen.context.path().join("new").exists(), "what a command writes into its context is lost");
    let said = kitchen.ask("ls / | grep -E '^(s|t|c|tmpfs|cache|run)$'; ls /run 2>/dev/null; true").await;
    assert_eq!(said, "");
    let again = kitchen.build_with(text, |request| {
        secrets(request);
        request.no_cache = true;
    });
    assert_eq!(again.await.output.last().unwrap(), "2", "a cache mount is found again");
    let text = "FROM busybox AS other\nRUN mkdir /o && echo other >/o/f\nFROM busybox\nARG ME=7\nWORKDIR /w\n\
        RUN --mount=from=other,source=/o cat f && pwd && touch x 2>/dev/null || echo ro\n\
        RUN --mount=type=cache,target=cache,uid=${ME},mode=0${ME}00 stat -c '%u %a' /w/cache\n";
    let built = kitchen.build(text).await;
    assert_eq!(built.output, ["other", "/w", "ro", "7 700"], "without a target it is the working folder");
    kitchen.fails("FROM busybox\nRUN --mount=target=/ true\n", "Dockerfile:2: invalid mount target \"/\"").await;
    kitchen
        .fails("FROM busybox\nARG U=x\nRUN --mount=type=cache,target=/c,uid=$U true\n", "Dockerfile:3: invalid value x")
        .await;
    kitchen
        .fails("FROM busybox\nRUN --mount=type=secret,id=x,required true\n", "Dockerfile:2: secret x: not found")
        .await;
    kitchen
        .fails("FROM busybox\nRUN --mount=source=../..,target=/x true\n", "forbidden path outside the build context")
        .await;
    kitchen
        .fails("FROM busybox\nRUN --mount=source=none,target=/x true\n", "failed to mount none of the build context")
        .await;
    kitchen.done().await;
}

pub(crate) async fn text_in_the_dockerfile_becomes_files_and_scripts() {
    let kitchen = Kitchen::new().await;
    let built = kitchen
        .build(
            "FROM busybox\nARG NAME=reeve\nRUN <<EOF\nfor n in 1 2; do\n  echo \"$NAME $n\"\ndone\nEOF\n\
             RUN cat <<'A' >/a; cat <<-B >/b\n$literal\nA\n\tx\n\tB\n\
             RUN <<SCRIPT\n#!/bin/env sh\necho script $0\nSCRIPT\n\
             COPY <<conf <<\"raw\" /etc/app/\nname=\"$NAME\" \\$x\nconf\nname=$NAME\nraw\n",
        )
        .await;
    assert_eq!(built.output, ["reeve 1", "reeve 2", "script /dev/pipes/SCRIPT"]);
    let said = kitchen.ask("cat /a /b /etc/app/conf /etc/app/raw").await;
    assert_eq!(said, "$literal\nx\nname=\"reeve\" $x\nname=$NAME");
    kitchen.done().await;
}

pub(crate) async fn what_an_image_wants_of_those_who_build_on_it_happens_once() {
    let kitchen = Kitchen::new().await;
    kitchen.write("app", "1");
    kitchen.build("FROM busybox\nONBUILD COPY app /app\nONBUILD RUN echo triggered; cat /app\n").await;
    kitchen.bed.engine.images().tag("out", "base").unwrap();
    let built = kitchen.build("FROM base\nRUN ls /app\n").await;
    assert_eq!(built.output, ["triggered", "1", "/app"]);
    kitchen.bed.engine.images().tag("out", "child").unwrap();
    assert_eq!(kitchen.build("FROM child\nRUN echo no more\n").await.output, ["no more"]);
    kitchen.done().await;
}

pub(crate) async fn a_command_without_a_network_has_none() {
    let kitchen = Kitchen::new().await;
    let built = kitchen
        .build("FROM busybox\nRUN --network=none ip -o link | wc -l\nRUN test -s /etc/hosts && echo there\n")
        .await;
    assert_eq!(built.output, ["1", "there"]);
    kitchen.done().await;
}

pub(crate) async fn a_proxy_that_is_given_is_known_by_both_its_names() {
    let kitchen = Kitchen::new().await;
    let given = |request: &mut BuildRequest| {
        let args = [("HTTP_PROXY", "up"), ("no_proxy", "low"), ("https_proxy", "one"), ("HTTPS_PROXY", "two")];
        request.build_args = args.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    };
    let text = "FROM busybox\nRUN echo $HTTP_PROXY $http_proxy $NO_PROXY $no_proxy $HTTPS_PROXY $https_proxy.\n";
    let built = kitchen.build_with(text, given).await;
    built.image.unwrap();
    assert_eq!(built.output, ["up up low low one one."]);
    assert_eq!(kitchen.ask("env | grep -ci proxy; true").await, "0");
    kitchen.done().await;
}

pub(crate) async fn what_an_image_calls_a_volume_can_be_written_in_a_read_only_root() {
    let kitchen = Kitchen::new().await;
    kitchen
        .build(
            "FROM busybox\nRUN mkdir -p /data/sub /var/mine && echo kept >/data/sub/f && stat -c %u /data\n\
             VOLUME /data /made /var/mine/ /proc\nVOLUME [\"/escape/x\", \"/\"]\n",
        )
        .await;
    let image = kitchen.bed.engine.images().get("out").unwrap().unwrap().id;
    let mine = kitchen.bed.dir().join("mine");
    std::fs::create_dir(&mine).unwrap();
    let script = "cat /data/sub/f; echo new >/data/sub/f && cat /data/sub/f; touch /made/g && ls /made; \
                  touch /no /bin/no 2>&1; ls /var/mine; touch /var/mine/no 2>&1; ls -d /proc/1; ls /tmp";
    let mut config = ContainerConfig { image, ..kitchen.bed.script("volumes", script) };
    config.security.read_only_rootfs = true;
    config.mounts = vec![Mount { source: mine, target: "/var/mine".into(), read_only: true, ..Mount::default() }];
    let (code, said) = kitchen.bed.run(config).await;
    let refused = |path: &str| format!("touch: {path}: Read-only file system\n");
    let [no, bin, mine] = ["/no", "/bin/no", "/var/mine/no"].map(refused);
    assert_eq!((code, said), (0, format!("kept\nnew\ng\n{no}{bin}{mine}/proc/1\nx\n")));
    assert_eq!(kitchen.ask("cat /data/sub/f; ls /made 2>/dev/null; true").await, "kept", "the image is as it was");
    kitchen.done().await;
}

pub(crate) async fn a_build_that_is_killed_leaves_no_process_behind() {
    let kitchen = Kitchen::new().await;
    kitchen.write("Dockerfile", "FROM busybox\nRUN echo $$ && sleep 1000\n");
    let images = kitchen.bed.dir().join("data/images");
    let mut child =
        Command::new("/proc/self/exe").arg(FOR_EVER).arg(&images).arg(kitchen.context.path()).spawn().unwrap();
    let sleeping = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let is_ours = |path: &Path| {
            let text = |file: &str| std::fs::read_to_string(path.join(file)).unwrap_or_default();
            text("cmdline").contains("sleep\x001000") && text("cgroup").contains("reeve-build-")
        };
        processes.filter(|entry| is_ours(&entry.path())).count()
    };
    crate::bed::eventually("the command runs", || sleeping() > 0).await;
    child.kill().unwrap();
    child.wait().unwrap();
    crate::bed::eventually("nothing of it runs", || sleeping() == 0).await;
    // The next one takes away what is left.
    kitchen.build("FROM busybox\nRUN true\n").await;
    kitchen.done().await;
}

/// Waits in a shared folder for another command that does the same.
fn meet(own: &str, other: &str) -> String {
    format!(
        "RUN --mount=type=cache,id=meet,target=/m touch /m/{own}; n=0; \
         while [ ! -e /m/{other} ] && [ $n -lt 60 ]; do sleep 1; n=$((n+1)); done; test -e /m/{other} && echo {own} >/{own}\n"
    )
}

pub(crate) async fn stages_that_do_not_need_each_other_are_built_at_the_same_time() {
    if std::thread::available_parallelism().map_or(1, std::num::NonZero::get) < 2 {
        eprintln!("SKIPPED: one processor builds one stage at a time");
        return;
    }
    let kitchen = Kitchen::new().await;
    let (one, two) = (meet("a", "b"), meet("b", "a"));
    let text = format!(
        "FROM busybox AS a\n{one}FROM busybox AS b\n{two}FROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /\nRUN cat /a /b\n"
    );
    assert_eq!(kitchen.build(&text).await.output, ["a", "b"]);
    kitchen.done().await;
}

pub(crate) async fn a_stage_that_fails_ends_the_others_at_once() {
    let kitchen = Kitchen::new().await;
    let began = tokio::time::Instant::now();
    let text = "FROM busybox AS a\nRUN sleep 1; exit 3\nFROM busybox AS b\nRUN sleep 1000\nFROM busybox\n\
        COPY --from=a /x /\nCOPY --from=b /x /\n";
    kitchen.fails(text, "Dockerfile:2: process \"/bin/sh -c sleep 1; exit 3\" did not complete successfully").await;
    assert!(began.elapsed().as_secs() < 300, "nobody waits for the other stage");
    kitchen.done().await;
}

pub(crate) async fn a_squashed_image_has_one_layer_upon_its_base_and_the_same_files() {
    let kitchen = Kitchen::new().await;
    kitchen.write("f", "from the context");
    let text = "FROM busybox AS base\nRUN mkdir -p /d/e && echo 1 >/d/gone && echo 1 >/d/kept && echo 1 >/d/e/x\n";
    kitchen.build(text).await;
    kitchen.bed.engine.images().tag("out", "base").unwrap();
    let text = "FROM base\nRUN rm /d/gone && rm -r /d/e && echo 2 >/d/new\nCOPY f /d/f\n\
        RUN echo 3 >/d/new && ln /d/new /d/twice && ln -s new /d/link && chmod 700 /d\nENV A=b\n";
    let layers = |image: &str| kitchen.bed.engine.images().config(image).unwrap().rootfs().diff_ids().len();
    let plain = kitchen.build(text).await.image.unwrap();
    assert_eq!(layers("out"), layers("base") + 3);
    let script = "find /d | sort; cat /d/kept /d/new /d/f; stat -c '%a %h' /d /d/new; echo; echo $A";
    let script = script.replace("find /d | sort", "ls /d");
    let before = kitchen.ask(&script).await;
    let squashed = kitchen.build_with(text, |request| request.squash = true).await.image.unwrap();
    assert_ne!(squashed.id, plain.id);
    assert_eq!(layers("out"), layers("base") + 1);
    assert_eq!(kitchen.ask(&script).await, before);
    assert!(before.contains("link") && !before.contains("gone") && before.contains("700"), "{before}");
    kitchen.done().await;
}

pub(crate) async fn a_command_sees_of_the_context_what_is_not_ignored() {
    let kitchen = Kitchen::new().await;
    kitchen.write(".dockerignore", "secret\nd\n!d/keep\n*.log\n");
    for path in ["secret", "d/no", "d/keep/f", "a.log", "b", "e/g"] {
        kitchen.write(path, path);
    }
    let text = "FROM busybox\nRUN --mount=target=/c ls /c /c/d /c/d/keep /c/e; cat /c/b; echo; touch /c/x 2>/dev/null || echo ro\n\
        RUN --mount=target=/c,rw touch /c/new /c/d/new && ls /c\n";
    let output = kitchen.build(text).await.output.join(" ");
    let all = "/c: Dockerfile b d e  /c/d: keep  /c/d/keep: f  /c/e: g b ro Dockerfile b d e new";
    assert_eq!(output, all);
    assert!(!kitchen.context.path().join("new").exists());
    kitchen
        .fails("FROM busybox\nRUN --mount=source=a.log,target=/l true\n", "Dockerfile:2: failed to mount a.log")
        .await;
    kitchen.done().await;
}

pub(crate) async fn a_cache_begins_as_what_a_stage_holds() {
    let kitchen = Kitchen::new().await;
    let text = "FROM busybox AS seed\nRUN mkdir /s && echo 1 >/s/f\nFROM busybox\n\
        RUN --mount=type=cache,target=/c,from=seed,source=/s echo more >>/c/f; wc -l </c/f\n";
    assert_eq!(kitchen.build(text).await.output, ["2"]);
    let other = text.replace("wc -l", "echo again; wc -l");
    assert_eq!(kitchen.build(&other).await.output, ["again", "3"], "and is found again");
    // As BuildKit: another stage, be it only by its times, begins another folder.
    let other = text.replace("echo 1", "echo one");
    assert_eq!(kitchen.build(&other).await.output, ["2"]);
    kitchen.done().await;
}

pub(crate) async fn a_command_is_led_to_the_agent_of_whoever_builds() {
    let kitchen = Kitchen::new().await;
    let socket = kitchen.bed.dir().join("agent");
    let _agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let text = "FROM busybox\nRUN --mount=type=ssh,mode=0666,uid=7 test -S $SSH_AUTH_SOCK && stat -c '%a %u' $SSH_AUTH_SOCK\n\
        RUN --mount=type=ssh,id=none test -z \"$SSH_AUTH_SOCK\" && echo none\nRUN ls /run 2>/dev/null; true\n";
    let given = |request: &mut BuildRequest| request.ssh = [("default".to_owned(), socket.clone())].into();
    let built = kitchen.build_with(text, given).await;
    assert_eq!(built.output, ["666 7", "none"], "{:?}", built.image.err());
    kitchen
        .fails(
            "FROM busybox\nRUN --mount=type=ssh,required true\n",
            "Dockerfile:2: unset ssh forward key default: give --ssh default",
        )
        .await;
    kitchen.done().await;
}

/// The first argument of a process that only builds, see [`a_build_that_is_killed_leaves_no_process_behind`].
pub(crate) const FOR_EVER: &str = "build-for-ever";

/// The main of that process.
pub(crate) fn build_for_ever(images: &Path, context: &Path) {
    let store = reeve_engine::images::ImageStore::open(images, reeve_api::clock::RealClock::shared()).unwrap();
    let request = BuildRequest { context: context.to_owned(), ..BuildRequest::default() };
    build(&store, &request, &mut |_| {}).unwrap();
}
